//! Keys by number. Making one takes an elliptic-curve multiplication, so the first ones are kept.

use execution::testing::TestKey;
use rayon::prelude::*;
use std::sync::LazyLock;

/// How many keys are kept.
const KEPT: u64 = 256;

static KEYS: LazyLock<Vec<TestKey>> = LazyLock::new(|| make(KEPT));

/// Key number `n`.
pub fn key(n: u64) -> TestKey {
    match usize::try_from(n).ok().and_then(|n| KEYS.get(n)) {
        Some(key) => key.clone(),
        None => TestKey::new(n),
    }
}

/// The first `count` keys, made on all cores.
pub fn make(count: u64) -> Vec<TestKey> {
    (0..count).into_par_iter().map(TestKey::new).collect()
}

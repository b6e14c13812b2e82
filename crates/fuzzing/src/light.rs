//! The light client against a server that edits what it serves.

use crate::codec::canonical;
use crate::light_chain::{Chain, Keys};
use crate::reader::Reader;
use light_client::{Checkpoint, Fork, Update};
use std::sync::LazyLock;
use types::encode;

const EPOCHS: u64 = 5;

static CHAIN: LazyLock<Chain> = LazyLock::new(|| Chain::new(Keys::Simulated, EPOCHS));

/// Updates of a chain over five epochs, in an order and with edits that the bytes choose. A client never believes what
/// is not in the chain, never goes back, and a refusal changes nothing.
pub fn light_client(bytes: &[u8]) {
    let chain = &*CHAIN;
    let mut reader = Reader::new(bytes);
    let mut client = chain.client();
    if reader.byte() % 2 == 1 {
        client = client.trusting_for(2);
    }
    for _ in 0..24 {
        if reader.is_empty() {
            break;
        }
        let height = 1 + reader.below(chain.blocks.len()) as u64;
        let mut encoded = encode(&chain.update(height));
        for _ in 0..reader.below(4) {
            let at = usize::from(reader.word()) % encoded.len();
            encoded[at] ^= reader.byte();
        }
        let Some(update) = canonical::<Update>(&encoded) else { continue };
        let before = client.clone();
        match client.apply(&update) {
            Ok(proven) => {
                let (header, commit) = &chain.blocks[height as usize - 1];
                assert_eq!(
                    (&update.header, &update.commit),
                    (header, commit),
                    "it believes an edited update"
                );
                assert!(proven.height > before.head().height);
                assert_eq!(client.set().id(), chain.sets[proven.epoch.get() as usize].id());
            }
            Err(_) => assert_eq!(client, before),
        }
        if reader.byte() % 8 == 7 {
            client.renew_trust();
        }
    }
}

/// Files and proofs as they come from outside: checkpoints (JSON), updates and fork proofs (borsh).
pub fn light_files(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => {
            let Some(checkpoint) =
                std::str::from_utf8(body).ok().and_then(|text| Checkpoint::parse(text).ok())
            else {
                return;
            };
            let again = serde_json::to_string(&checkpoint).unwrap();
            assert_eq!(Checkpoint::parse(&again).as_ref(), Ok(&checkpoint));
            assert_eq!(light_client::LightClient::new(checkpoint.clone()).unwrap().checkpoint(), checkpoint);
        }
        1 => drop(canonical::<Update>(body)),
        _ => {
            if let Some(fork) = canonical::<Fork>(body) {
                let sets = |epoch: types::Epoch| CHAIN.sets.get(epoch.get() as usize).map(|set| &**set);
                // Nobody signed two histories, so there is nothing to find.
                let domain = crate::light_chain::domain(types::Epoch::ZERO);
                assert_ne!(fork.verify(sets, &domain), Ok(true), "{fork}");
                let _ = fork.evidence();
            }
        }
    }
}

/// Well-formed inputs to start from.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let real = Chain::new(Keys::Real, 1);
    let fork = Fork {
        first: CHAIN.blocks[1].1.clone(),
        header: CHAIN.blocks[2].0.clone(),
        second: CHAIN.blocks[2].1.clone(),
    };
    let checkpoint = serde_json::to_vec(&real.genesis()).unwrap();
    let each_epoch: Vec<u8> = [3, 7, 11, 15, 19].iter().flat_map(|height| [*height, 0, 0]).collect();
    let edited = vec![0, 3, 1, 9, 0, 1, 0, 3, 0, 0, 7, 2, 90, 1, 1, 1, 0, 4, 0];
    vec![
        ("light_client", [&[0][..], &each_epoch].concat()),
        ("light_client", [&[1][..], &each_epoch].concat()),
        ("light_client", edited),
        ("light_files", [&[0][..], &checkpoint].concat()),
        ("light_files", [&[1][..], &encode(&CHAIN.update(5))].concat()),
        ("light_files", [&[2][..], &encode(&fork)].concat()),
    ]
}

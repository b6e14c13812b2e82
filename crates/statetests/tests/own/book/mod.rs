//! What is tested, by folder.

mod block;
mod calls;
mod create;
mod delegation;
mod fees;
mod halts;
mod precompiles;
mod refused;
mod storage;

use crate::spec::Spec;

pub(crate) fn book() -> Vec<Spec> {
    [
        fees::specs(),
        create::specs(),
        calls::specs(),
        halts::specs(),
        storage::specs(),
        block::specs(),
        precompiles::specs(),
        delegation::specs(),
        refused::specs(),
    ]
    .concat()
}

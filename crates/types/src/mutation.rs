//! Injected bugs, one at a time, to prove that the tests notice them (specs/mutations.md).
//!
//! Only with the feature `mutations`, which nothing but the mutation tests turns on: without it [`injected!`] is the
//! constant `false`, no bug is compiled in, and the node's binary refuses to be built with it ([`POSSIBLE`]).

/// Whether this build can misbehave on purpose.
pub const POSSIBLE: bool = cfg!(feature = "mutations");

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// Commits views below the last prepare, and views given up (C-4.2).
    NoGuard,
    /// Commits views below the last prepare; views given up still not.
    NoPreparedGuard,
    /// Commits views given up; views below the last prepare still not.
    NoTimeoutGuard,
    /// Prepares below the lock (C-4.1).
    NoLock,
    /// A certificate learnt late raises the lock (C-4.2).
    LockOnLateQc,
    /// Commits without the executor's verdict (C-4.2).
    CommitUnexecuted,
    /// Messages leave before the disk has them (C-7.2).
    SendBeforeFsync,
    /// Certificates and votes of a step go to disk in one batch (C-7.3).
    OneBatch,
    /// Quorums count heads (C-1.2).
    QuorumByCount,
    /// A quorum is one unit of stake too small (C-1.2).
    QuorumMinusOne,
    /// A timeout certificate of any earlier view justifies skipping views (C-4.1).
    StaleTc,
    /// A link may start below what the timeout certificate reports (C-4.1).
    BelowTc,
    /// Blocks are built on an epoch's last block before it is final (C-8.3).
    BoundaryWithoutFinality,
    /// The certificate in a proposal is not verified (C-4.1).
    UnverifiedSource,
    /// Signatures are not bound to chain and epoch (C-1.5).
    WrongDomain,
}

#[cfg(feature = "mutations")]
mod active {
    use super::Mutation;
    use std::cell::Cell;

    std::thread_local! {
        static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Whether a bug is injected on this thread.
    pub fn is_injected(mutation: Mutation) -> bool {
        ACTIVE.get() == Some(mutation)
    }

    /// Runs `test` with a bug injected on this thread.
    pub fn with<T>(mutation: Option<Mutation>, test: impl FnOnce() -> T) -> T {
        struct Restore(Option<Mutation>);
        impl Drop for Restore {
            fn drop(&mut self) {
                ACTIVE.set(self.0);
            }
        }
        let _restore = Restore(ACTIVE.replace(mutation));
        test()
    }
}

#[cfg(feature = "mutations")]
pub use active::{is_injected, with};

/// Whether the bug of this name is injected: never, but in mutation tests.
#[cfg(feature = "mutations")]
#[macro_export]
macro_rules! injected {
    ($name:ident) => {
        $crate::mutation::is_injected($crate::mutation::Mutation::$name)
    };
}

/// Whether the bug of this name is injected: never, but in mutation tests.
#[cfg(not(feature = "mutations"))]
#[macro_export]
macro_rules! injected {
    ($name:ident) => {
        $crate::mutation::never()
    };
}

/// False; a function, so that lints do not reason about conditions with a literal in them.
#[cfg(not(feature = "mutations"))]
#[doc(hidden)]
pub const fn never() -> bool {
    false
}

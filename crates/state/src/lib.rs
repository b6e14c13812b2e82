//! Execution disk: accounts, storage, code, blocks, receipts and the transaction index.

//! The registry's ABI, from the interface file that users compile against.

#![allow(missing_docs, clippy::too_many_arguments)]

alloy_sol_types::sol!(
    #[sol(all_derives)]
    "../../contracts/IValidatorRegistry.sol"
);

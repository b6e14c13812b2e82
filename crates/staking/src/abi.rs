//! The registry's ABI, from the interface file that users compile against.

#![allow(missing_docs)]

alloy_sol_types::sol!("../../contracts/IValidatorRegistry.sol");

//! Whether a transaction was refused for the reason its fixture names.

/// Names of exceptions (newer fixtures' without their class, older ones' in full) and the words that this chain's
/// refusals use for them. A name that is not here is not compared.
const WORDS: &[(&str, &[&str])] = &[
    ("NONCE_MISMATCH_TOO_LOW", &["nonce too low"]),
    ("NONCE_MISMATCH_TOO_HIGH", &["nonce too high"]),
    ("NONCE_IS_MAX", &["nonce has max value", "nonce too high", "nonce too low"]),
    ("NONCE_OVERFLOW", &["malformed", "beyond 64 bits", "nonce"]),
    ("INSUFFICIENT_ACCOUNT_FUNDS", &["insufficient funds"]),
    ("GASLIMIT_PRICE_PRODUCT_OVERFLOW", &["insufficient funds", "malformed", "beyond", "overflow"]),
    ("INTRINSIC_GAS_TOO_LOW", &["intrinsic gas too low"]),
    ("INTRINSIC_GAS_BELOW_FLOOR_GAS_COST", &["intrinsic gas too low"]),
    ("INSUFFICIENT_MAX_FEE_PER_GAS", &["less than block base fee"]),
    ("PRIORITY_GREATER_THAN_MAX_FEE_PER_GAS", &["max priority fee per gas higher"]),
    ("PRIORITY_OVERFLOW", &["malformed", "beyond 128 bits", "max priority fee per gas higher"]),
    ("GAS_ALLOWANCE_EXCEEDED", &["left in the block"]),
    ("GAS_LIMIT_EXCEEDS_MAXIMUM", &["gas limit too high"]),
    ("INITCODE_SIZE_EXCEEDED", &["max initcode size"]),
    ("SENDER_NOT_EOA", &["sender not an eoa"]),
    ("INVALID_CHAINID", &["invalid chain id"]),
    ("INVALID_SIGNATURE_VRS", &["signature", "malformed"]),
    ("TYPE_1_TX_PRE_FORK", &["not supported"]),
    ("TYPE_2_TX_PRE_FORK", &["not supported"]),
    ("TYPE_4_TX_PRE_FORK", &["not supported"]),
    ("TYPE_4_EMPTY_AUTHORIZATION_LIST", &["empty auth"]),
    ("TYPE_4_TX_CONTRACT_CREATION", &["malformed", "creates no contract"]),
    ("TYPE_4_INVALID_AUTHORIZATION_FORMAT", &["malformed", "beyond"]),
    ("TYPE_4_INVALID_AUTHORITY_SIGNATURE", &["malformed", "beyond", "signature"]),
    ("TYPE_NOT_SUPPORTED", &["not supported"]),
    ("TR_TypeNotSupported", &["not supported"]),
    ("TR_NoFunds", &["insufficient funds"]),
    ("TR_NoFundsX", &["insufficient funds"]),
    ("TR_IntrinsicGas", &["intrinsic gas too low"]),
    ("IntrinsicGas", &["intrinsic gas too low"]),
    ("TR_FeeCapLessThanBlocks", &["less than block base fee"]),
    ("TR_TipGtFeeCap", &["max priority fee per gas higher"]),
    ("TR_GasLimitReached", &["left in the block"]),
    ("TR_InitCodeLimitExceeded", &["max initcode size"]),
    ("TR_NonceHasMaxValue", &["nonce has max value", "nonce too high", "nonce too low"]),
    ("TR_NonceTooLow", &["nonce too low"]),
    ("TR_NonceTooHigh", &["nonce too high"]),
    ("SenderNotEOA", &["sender not an eoa"]),
];

/// Whether `reason` is one that `expected` allows: names separated by `|`. True when no name is known.
pub(crate) fn agree(expected: &str, reason: &str) -> bool {
    let names = expected.split('|').map(|name| name.trim().rsplit('.').next().unwrap_or(name));
    let known: Vec<&[&str]> = names.filter_map(words).collect();
    known.is_empty() || known.iter().any(|words| words.iter().any(|word| reason.contains(word)))
}

fn words(name: &str) -> Option<&'static [&'static str]> {
    WORDS.iter().find(|(known, _)| *known == name).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_compared_with_every_named_reason_and_unknown_names_allow_any() {
        let low = "nonce too low: transaction has 1, account is at 2";
        assert!(agree("TransactionException.NONCE_MISMATCH_TOO_LOW", low));
        assert!(agree(
            "TransactionException.SENDER_NOT_EOA|TransactionException.NONCE_MISMATCH_TOO_LOW",
            low
        ));
        assert!(agree("TR_SomethingNew", low));
        assert!(!agree("TransactionException.NONCE_MISMATCH_TOO_HIGH", low));
        assert!(!agree("TR_NoFunds", low));
    }
}

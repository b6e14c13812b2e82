// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.4;

/// The validator registry of a Tandem chain, at 0x0000000000000000000000000000000000001000.
///
/// It is built into the executor: the account's code is a marker, its storage is ordinary state. Amounts are in wei.
/// A validator is named by the account that registered it; that account alone acts for it. A change becomes part of
/// the set computed after the last block of the running epoch, which votes one epoch later (specs/staking.md).
interface IValidatorRegistry {
    enum Status {
        /// Never registered.
        None,
        /// Registered, not in the newest set.
        Pending,
        /// In the newest set.
        Active,
        /// Wants out; still in the newest set, or waits for the next one to be computed.
        Exiting,
        /// Out. May register again.
        Exited,
        /// Out for ever: convicted of a provable fault.
        Tombstoned
    }

    struct Unbonding {
        uint256 amount;
        /// First epoch in which it can be withdrawn.
        uint64 releaseEpoch;
    }

    struct ValidatorInfo {
        Status status;
        bytes pubkey;
        /// What its weight is drawn towards.
        uint256 stake;
        /// Its weight in the newest set.
        uint256 weight;
        /// Taken back, and waiting for the weight to follow.
        uint256 leaving;
        /// Burned so far.
        uint256 slashed;
        Unbonding[] unbonding;
    }

    struct Member {
        address validator;
        bytes pubkey;
        uint256 weight;
    }

    struct Params {
        uint64 epochLength;
        uint32 maxValidators;
        uint32 maxCandidates;
        uint256 minStake;
        uint32 stakeChangeCapNumerator;
        uint32 stakeChangeCapDenominator;
        uint64 unbondingEpochs;
        uint32 slashBasisPoints;
    }

    event Registered(address indexed validator, bytes pubkey, uint256 stake);
    event StakeAdded(address indexed validator, uint256 amount, uint256 stake);
    event Unstaked(address indexed validator, uint256 amount, uint256 stake);
    event ExitRequested(address indexed validator, uint256 amount);
    event Withdrawn(address indexed validator, uint256 amount);
    event KeyRotated(address indexed validator, bytes pubkey);
    /// A full registry let go of its smallest validator outside the set, for a larger one.
    event Displaced(address indexed validator, address indexed by);

    error UnknownFunction();
    error MalformedCall();
    error NotPayable();
    error OnlyDirectCalls();
    error AlreadyRegistered();
    error NotRegistered();
    error BadPublicKey();
    error BadProofOfPossession();
    error KeyInUse();
    error ZeroAmount();
    error StakeTooLow(uint256 have, uint256 need);
    error InsufficientStake(uint256 have, uint256 want);
    error RegistryFull(uint256 have, uint256 needMoreThan);
    /// `nextEpoch` is the first epoch in which something can be withdrawn, 0 when nothing is on its way.
    error NothingToWithdraw(uint64 currentEpoch, uint64 nextEpoch);

    /// Registers the caller with a BLS12-381 key: 48 bytes in G1, and a proof of possession: 96 bytes in G2.
    function register(bytes calldata pubkey, bytes calldata proofOfPossession) external payable;
    function addStake() external payable;
    /// Takes stake back; at least the minimum must remain.
    function unstake(uint256 amount) external;
    /// Takes all stake back and leaves.
    function exit() external;
    /// Pays out everything whose unbonding is over. The caller gets a plain transfer: no code of it runs.
    function withdraw() external;
    /// Replaces the key, from the next set computed on. The old key stays answerable for what it signed.
    function rotateKey(bytes calldata newPubkey, bytes calldata proofOfPossession) external;

    function validator(address account) external view returns (ValidatorInfo memory);
    function stakeOf(address account) external view returns (uint256);
    /// The set of an epoch in canonical order: of the running epoch, the next one (and the one after it at the very
    /// end of an epoch), and as many past ones as evidence may name. Empty for any other.
    function validatorSet(uint256 epoch) external view returns (Member[] memory);
    /// The epoch of the block this runs in, and the newest epoch whose set is computed.
    function epochs() external view returns (uint64 current, uint64 newestSet);
    function params() external view returns (Params memory);
}

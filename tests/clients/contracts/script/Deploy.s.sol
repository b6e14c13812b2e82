// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {Token} from "../src/Token.sol";

/// The two cheat codes the script needs; forge implements them at a fixed address.
interface Vm {
    function startBroadcast() external;
    function stopBroadcast() external;
}

/// Deploys a token and sends three transfers: four transactions of one sender in one run.
contract Deploy {
    Vm private constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    function run(address receiver) external returns (Token token) {
        VM.startBroadcast();
        token = new Token("Scripted", "SCR", 1_000 ether);
        token.transfer(receiver, 1 ether);
        token.transfer(receiver, 2 ether);
        token.transfer(receiver, 3 ether);
        VM.stopBroadcast();
        require(token.balanceOf(receiver) == 6 ether, "Deploy: transfers are missing");
    }
}

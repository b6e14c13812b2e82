"""web3.py: the same flows from Python, over HTTP and over a WebSocket."""

import asyncio
import json
import os
import re
import sys
import time

from eth_account import Account
from web3 import AsyncWeb3, Web3, WebSocketProvider
from web3.exceptions import ContractCustomError, ContractLogicError, ContractPanicError, Web3RPCError
from web3.utils.subscriptions import LogsSubscription, NewHeadsSubscription

MNEMONIC = "test test test test test test test test test test test junk"
ACCOUNT_INDEX = 4
WAIT_S = 30

RPC_URL = os.environ["RPC_URL"]
WS_URL = re.sub("^http", "ws", RPC_URL)
with open(os.path.join(os.environ["SUITE_DIR"], "contracts/out/Token.sol/Token.json"), encoding="utf8") as file:
    ARTIFACT = json.load(file)
ABI, BYTECODE = ARTIFACT["abi"], ARTIFACT["bytecode"]["object"]

Account.enable_unaudited_hdwallet_features()
OWNER = Account.from_mnemonic(MNEMONIC, account_path=f"m/44'/60'/0'/0/{ACCOUNT_INDEX}")
w3 = Web3(Web3.HTTPProvider(RPC_URL))
state = {}
checks = []


def check(title):
    """Registers a check; they run in the order of the file."""

    def register(action):
        checks.append((title, action))
        return action

    return register


def fresh(salt):
    """An address nobody owns: of this run and of one check, so that balances start at zero on any network."""
    return Web3.to_checksum_address(f"0xfee00000000000000000{os.environ['RUN_ID']}{salt:08x}")


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}: expected {expected!r}, got {actual!r}")


def raises(kind, action):
    """Runs `action`, which must fail with `kind`, and returns the error."""
    try:
        value = action()
    except kind as error:
        return error
    raise AssertionError(f"was accepted: {value!r}")


def send(call, **fields):
    """Builds, signs and sends a contract call; returns its receipt."""
    nonce = w3.eth.get_transaction_count(OWNER.address, "pending")
    fields = {"from": OWNER.address, "nonce": nonce, "chainId": w3.eth.chain_id, **fields}
    signed = OWNER.sign_transaction(call.build_transaction(fields))
    return wait(w3.eth.send_raw_transaction(signed.raw_transaction))


def wait(tx_hash):
    return w3.eth.wait_for_transaction_receipt(tx_hash, timeout=WAIT_S, poll_latency=0.05)


@check("is connected, and the account is funded")
def connected():
    equal(w3.is_connected(), True, "connected")
    assert w3.eth.get_balance(OWNER.address) > Web3.to_wei(9_000, "ether"), "balance"


@check("deploys the token")
def deploy():
    call = w3.eth.contract(abi=ABI, bytecode=BYTECODE).constructor("Python", "PYT", 1_000)
    receipt = send(call)
    equal(receipt["status"], 1, "status")
    state["deployed"] = receipt
    state["token"] = w3.eth.contract(address=receipt["contractAddress"], abi=ABI)
    equal(state["token"].functions.name().call(), "Python", "name")


@check("transfers, and the receipt's log decodes")
def transfer():
    token = state["token"]
    receipt = send(token.functions.transfer(fresh(500), 70))
    [event] = token.events.Transfer().process_receipt(receipt)
    equal(event["args"]["value"], 70, "value")
    equal(token.functions.balanceOf(fresh(500)).call(), 70, "balance")
    state["transfer"] = receipt


@check("reads the logs by event and receiver")
def logs():
    token, block = state["token"], state["deployed"]["blockNumber"]
    events = token.events.Transfer().get_logs(from_block=block, argument_filters={"to": fresh(500)})
    equal(len(events), 1, "events")
    equal(events[0]["transactionHash"], state["transfer"]["transactionHash"], "transaction")


@check("a custom error arrives with its bytes, which decode")
def custom_error():
    token = state["token"]
    error = raises(ContractCustomError, lambda: token.functions.transfer(fresh(500), 5_000).call({"from": OWNER.address}))
    data = bytes.fromhex(error.data[2:])
    equal(data[:4], Web3.keccak(text="InsufficientBalance(address,uint256,uint256)")[:4], "selector")
    account, balance, needed = w3.codec.decode(["address", "uint256", "uint256"], data[4:])
    equal((account.lower(), balance, needed), (OWNER.address.lower(), 930, 5_000), "arguments")


@check("a reason string and a panic arrive decoded")
def reason_and_panic():
    token = state["token"]
    refused = raises(ContractLogicError, lambda: token.functions.transferFrom(fresh(501), fresh(500), 1).call())
    assert "Token: allowance exceeded" in str(refused), str(refused)
    panicked = raises(ContractPanicError, lambda: token.functions.share(0).call())
    assert "0x12" in str(panicked) or "zero" in str(panicked).lower(), str(panicked)


@check("estimating a reverting transaction is refused with the error")
def estimate_reverts():
    raises(ContractCustomError, lambda: send(state["token"].functions.transfer(fresh(500), 5_000)))


@check("a used nonce is refused in the usual wording")
def used_nonce():
    fields = {"to": fresh(500), "value": 1, "gas": 21_000, "nonce": 0, "chainId": w3.eth.chain_id}
    fields |= {"maxFeePerGas": w3.eth.gas_price * 2, "maxPriorityFeePerGas": 1}
    raw = OWNER.sign_transaction(fields).raw_transaction
    error = raises(Web3RPCError, lambda: w3.eth.send_raw_transaction(raw))
    assert "nonce too low" in str(error), str(error)


@check("fees: fee_history, gas_price and max_priority_fee")
def fees():
    history = w3.eth.fee_history(2, "latest", [25, 75])
    equal(len(history["baseFeePerGas"]), len(history["gasUsedRatio"]) + 1, "base fees")
    assert w3.eth.gas_price > 0 and w3.eth.max_priority_fee >= 0, "prices"


@check("batch_requests answers every call")
def batch():
    with w3.batch_requests() as requests:
        requests.add(w3.eth.get_balance(OWNER.address))
        requests.add(w3.eth.get_block("latest"))
        requests.add(state["token"].functions.balanceOf(fresh(500)))
        balance, block, tokens = requests.execute()
    assert balance > 0 and block["number"] > 0, "balance and block"
    equal(tokens, 70, "tokens")


@check("an event filter reports new entries")
def event_filter():
    token = state["token"]
    entries = token.events.Approval().create_filter(from_block="latest")
    receipt = send(token.functions.approve(fresh(502), 8))
    deadline = time.monotonic() + WAIT_S
    found = []
    while not found and time.monotonic() < deadline:
        found = [e for e in entries.get_new_entries() if e["transactionHash"] == receipt["transactionHash"]]
    equal([e["args"]["value"] for e in found], [8], "values")
    equal(w3.eth.uninstall_filter(entries.filter_id), True, "uninstall")


@check("past state: the token balance before the transfer")
def past_state():
    call, height = state["token"].functions.balanceOf(fresh(500)), state["transfer"]["blockNumber"]
    equal((call.call(block_identifier=height - 1), call.call(block_identifier=height)), (0, 70), "balances")


@check("WebSocket: newHeads and logs subscriptions")
def subscriptions():
    asyncio.run(asyncio.wait_for(subscribe(), WAIT_S + 20))


async def subscribe():
    heads, found = [], []
    enough = asyncio.Event()

    def settle():
        if len(heads) >= 2 and found:
            enough.set()

    async def on_head(context):
        heads.append(context.result["number"])
        settle()

    async def on_log(context):
        found.append(context.result)
        settle()

    token = state["token"]
    async with AsyncWeb3(WebSocketProvider(WS_URL)) as live:
        topics = [Web3.to_hex(Web3.keccak(text="Transfer(address,address,uint256)"))]
        await live.subscription_manager.subscribe([
            NewHeadsSubscription(handler=on_head),
            LogsSubscription(address=token.address, topics=topics, handler=on_log),
        ])
        listening = asyncio.create_task(live.subscription_manager.handle_subscriptions())
        sends = [asyncio.to_thread(send, token.functions.transfer(fresh(503), 1))]
        receipt = await sends[0]
        await asyncio.to_thread(send, token.functions.approve(fresh(504), 1))
        await asyncio.wait_for(enough.wait(), WAIT_S)
        listening.cancel()
    equal(found[0]["transactionHash"], receipt["transactionHash"], "transaction of the log")
    equal(heads, sorted(set(heads)), "heads in order")


def main():
    for title, action in checks:
        started = time.monotonic()
        try:
            action()
            print(f"ok   web3py: {title} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
        except Exception as error:  # a check reports whatever went wrong and the next one runs
            why = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            print(f"FAIL web3py: {title}: {why}", flush=True)
    print("done web3py", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Ethereum's executable specification as a second oracle of the state tests. See ../README.md.

`check FOLDER` runs fixtures through the specification and compares roots, logs and refusals. `fill FOLDER OUT` makes
new fixtures: it changes those of FOLDER at random and writes down what the specification says of the result, for
`cargo run --release -p statetests -- OUT`.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import sys
from collections import Counter
from pathlib import Path

from ethereum.crypto.hash import keccak256
from ethereum_spec_tools.evm_tools import create_parser
from ethereum_spec_tools.evm_tools.t8n import T8N, ForkCache

# Enough for a few hundred thousand instructions, which the specification needs seconds for.
GAS = (21_000, 400_000)
BLOCK_HASHES = 256


def block_hashes(number):
    """State tests have no chain: the hash of a block is the keccak of its number in decimal digits."""
    numbers = range(max(0, number - BLOCK_HASHES), number)
    return {hex(n): "0x" + keccak256(str(n).encode()).hex() for n in numbers}


def chosen(transaction, indexes):
    """The variant of a transaction that the indexes choose, as the specification's tool reads it."""
    lists = {"data": ("input", "data"), "gasLimit": ("gas", "gas"), "value": ("value", "value")}
    out = {}
    for key, value in transaction.items():
        if key in lists:
            name, index = lists[key]
            out[name] = value[indexes[index]]
        elif key == "accessLists":
            if value[indexes["data"]] is not None:
                out["accessList"] = value[indexes["data"]]
        else:
            out[key] = value
    return out


def execute(fork, env, pre, transaction, cache):
    """State root, hash of the logs, and whether the transaction was refused."""
    env = dict(env, blockHashes=block_hashes(int(env["currentNumber"], 16)), withdrawals=[])
    files = io.StringIO(json.dumps({"env": env, "alloc": pre, "txs": [transaction]}))
    arguments = ["t8n", "--input.alloc", "stdin", "--input.env", "stdin", "--input.txs", "stdin"]
    options = create_parser().parse_args([*arguments, "--state.fork", fork, "--state-test"])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        tool = T8N(options, io.StringIO(), files, cache)
        tool.run_state_test()
    result = tool.result
    return "0x" + result.state_root.hex(), "0x" + result.logs_hash.hex(), bool(result.rejected)


def cases(folder):
    """Every case below a folder: its name, test, fork and post."""
    for path in sorted(Path(folder).rglob("*.json")):
        for name, test in json.loads(path.read_text()).items():
            for fork, posts in test.get("post", {}).items():
                for post in posts:
                    indexes = "".join(f"{key[0]}{value}" for key, value in post["indexes"].items())
                    yield f"{path.relative_to(folder)}::{name}::{fork}/{indexes}", test, fork, post


def check(folder, cache):
    """What the specification makes of every case; true when it never contradicts a fixture."""
    tally = Counter()
    for name, test, fork, post in cases(folder):
        expected = (post["hash"], post["logs"], "expectException" in post)
        try:
            transaction = chosen(test["transaction"], post["indexes"])
            found = execute(fork, test["env"], copy.deepcopy(test["pre"]), transaction, cache)
        except Exception as error:  # noqa: BLE001 - the tool's own limits, each of them shown
            tally["not run"] += 1
            print(f"not run  {name}: {type(error).__name__} {error}")
            continue
        if found == expected:
            tally["refused" if expected[2] else "executed"] += 1
        elif "txbytes" in post and expected[2] and not found[2]:
            # The tool signs anew; what is wrong with the fixture's own bytes it never sees.
            tally["not run"] += 1
            print(f"not run  {name}: refused for its bytes")
        else:
            tally["contradicted"] += 1
            print(f"CONTRADICTED  {name}: root, logs, refused are {found}, the fixture says {expected}")
    print(", ".join(f"{count} {what}" for what, count in sorted(tally.items())))
    return tally["contradicted"] == 0 and tally["executed"] > 0


class Changes:
    """Random changes of a case."""

    def __init__(self, seed, tests):
        self.random = random.Random(seed)
        self.tests = tests
        accounts = [account for test in tests for account in test["pre"].values()]
        self.codes = sorted({account["code"] for account in accounts if len(account["code"]) > 4})

    def case(self):
        """A changed case without its expectation."""
        pick = self.random
        test = copy.deepcopy(pick.choice(self.tests))
        fork = pick.choice(sorted(test["post"]))
        indexes = pick.choice(test["post"][fork])["indexes"]
        env, pre, transaction = test["env"], test["pre"], test["transaction"]
        for key, index in (("data", "data"), ("gasLimit", "gas"), ("value", "value"), ("accessLists", "data")):
            if key in transaction:
                transaction[key] = [transaction[key][indexes[index]]]
        transaction["gasLimit"] = [hex(pick.randint(*GAS))]
        # Code is changed more often than the rest.
        ways = [self.code, self.code, self.code, self.data, self.value, self.storage, self.recipient, self.coinbase]
        for way in pick.choices(ways, k=pick.randint(1, 4)):
            way(env, pre, transaction)
        return {"env": env, "pre": pre, "transaction": transaction}, fork

    def contract(self, pre):
        """A contract of the state, if it has one."""
        return self.random.choice(sorted(address for address in pre if len(pre[address]["code"]) > 4) or [None])

    def bent(self, text):
        """Bytes with a few of them changed, cut out, put in, or followed by another contract's."""
        pick, code = self.random, bytearray.fromhex(text[2:])
        at = pick.randrange(len(code) + 1)
        way = pick.randrange(5)
        if way == 0 and at < len(code):
            code[at] = pick.randrange(256)
        elif way == 1:
            code[at:at] = bytes(pick.randrange(256) for _ in range(pick.randint(1, 4)))
        elif way == 2:
            del code[at : at + pick.randint(1, 8)]
        elif way == 3:
            code[at:] = bytes.fromhex(pick.choice(self.codes)[2:])
        else:
            code[0:0] = bytes.fromhex(pick.choice(self.codes)[2:])[: pick.randint(1, 200)]
        return "0x" + bytes(code[:4_000]).hex()

    def code(self, _env, pre, _transaction):
        address = self.contract(pre)
        # A delegation is 23 bytes of a fixed form; other bytes that begin like one cannot be deployed.
        if address and not pre[address]["code"].startswith("0xef"):
            code = self.bent(pre[address]["code"])
            pre[address]["code"] = "0x00" + code[4:] if code.startswith("0xef") else code

    def data(self, _env, _pre, transaction):
        transaction["data"] = [self.bent(transaction["data"][0])]

    def value(self, _env, _pre, transaction):
        transaction["value"] = [hex(self.random.choice([0, 1, 7, 10**17, 10**19]))]

    def storage(self, _env, pre, _transaction):
        if address := self.contract(pre):
            pre[address]["storage"][hex(self.random.randrange(12))] = hex(self.random.choice([1, 2, 5, 2**255]))

    def recipient(self, _env, pre, transaction):
        if transaction["to"]:
            transaction["to"] = self.random.choice([*sorted(pre), f"0x{self.random.randrange(1, 12):040x}"])

    def coinbase(self, env, pre, _transaction):
        env["currentCoinbase"] = self.random.choice([*sorted(pre), f"0x{self.random.randrange(12):040x}"])


def fill(folder, out, count, seed, cache):
    """Writes `count` changed cases with what the specification says of them."""
    tests, seen = [], set()
    for _, test, _, _ in cases(folder):
        if id(test) not in seen:
            seen.add(id(test))
            tests.append(test)
    changes, tally = Changes(seed, tests), Counter()
    for number in range(count):
        test, fork = changes.case()
        try:
            transaction = chosen(test["transaction"], {"data": 0, "gas": 0, "value": 0})
            root, logs, refused = execute(fork, test["env"], copy.deepcopy(test["pre"]), transaction, cache)
        except Exception as error:  # noqa: BLE001 - the tool's own limits
            tally[f"left out, {type(error).__name__}"] += 1
            continue
        post = {"hash": root, "logs": logs, "indexes": {"data": 0, "gas": 0, "value": 0}}
        if refused:
            post["expectException"] = "by the specification"
        tally["refused" if refused else "executed"] += 1
        name = f"seed{seed}_{number}"
        path = Path(out) / f"seed{seed}" / f"{number // 100}" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({name: dict(test, post={fork: [post]})}, indent=1))
    print(", ".join(f"{count} {what}" for what, count in sorted(tally.items())))
    return tally["executed"] > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    checks = commands.add_parser("check", help="run fixtures through the specification")
    checks.add_argument("folder")
    fills = commands.add_parser("fill", help="make new fixtures by random changes")
    fills.add_argument("folder")
    fills.add_argument("out")
    fills.add_argument("--count", type=int, default=1_000)
    fills.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with ForkCache() as cache:
        if options.command == "check":
            good = check(options.folder, cache)
        else:
            good = fill(options.folder, options.out, options.count, options.seed, cache)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()

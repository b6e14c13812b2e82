//! The fixtures are current, the executor passes them, and the runner can fail.

use crate::{book::book, oracle::fixture, spec::Spec};
use serde_json::{Value, json};
use statetests::{Failure, Report, Skip, Suite, Verdict};
use std::{
    collections::BTreeSet,
    env, fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
};
use tempfile::TempDir;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures");

/// The folder of our fixtures; with `BLESS=1` they are written first, once for all tests of this process.
fn folder() -> &'static Path {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(|| {
        if env::var_os("BLESS").is_some() {
            bless();
        }
    });
    Path::new(FIXTURES)
}

fn bless() {
    if Path::new(FIXTURES).exists() {
        fs::remove_dir_all(FIXTURES).unwrap();
    }
    for spec in &book() {
        let path = path_of(spec);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text_of(&fixture(spec))).unwrap();
    }
}

fn path_of(spec: &Spec) -> PathBuf {
    Path::new(FIXTURES).join(spec.folder).join(format!("{}.json", spec.name))
}

fn text_of(fixture: &Value) -> String {
    serde_json::to_string_pretty(fixture).unwrap() + "\n"
}

fn read(relative: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(folder().join(relative)).unwrap()).unwrap()
}

/// An account that no fixture names.
const NOWHERE: &str = "0x1111111111111111111111111111111111111111";

/// Runs files written for one test.
fn run(files: &[(&str, &str)]) -> Report {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Suite::discover(folder.path()).unwrap().run(1, &()).unwrap()
}

/// The only failure of a fixture.
fn failure(fixture: &Value) -> Failure {
    let report = run(&[("one.json", &text_of(fixture))]);
    assert!(!report.succeeded());
    assert_eq!(report.total().failed, 1, "{}", report.summary(10));
    report.failures().next().unwrap().1.clone()
}

#[test]
fn the_fixtures_are_what_plain_revm_computes() {
    let folder = folder();
    let book = book();
    let mut paths = BTreeSet::new();
    // A spec that does not do what it says makes its oracle panic: all of them are worth knowing at once.
    let computed = book.iter().map(|spec| catch_unwind(|| text_of(&fixture(spec))));
    let computed: Vec<_> = computed.collect();
    let wrong = computed.iter().filter(|text| text.is_err()).count();
    assert_eq!(wrong, 0, "so many specs do not do what they say; see above");
    for (spec, text) in book.iter().zip(computed) {
        let path = path_of(spec);
        assert!(paths.insert(path.clone()), "two specs are called {}", path.display());
        let text = text.unwrap();
        let written = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            written == text,
            "{} is not what revm computes; see BLESS in the head of this test",
            path.display()
        );
    }
    assert_eq!(Suite::discover(folder).unwrap().files(), paths.len(), "a file has no spec");
}

#[test]
fn the_executor_passes_every_fixture_and_refuses_for_the_named_reason() {
    let report = Suite::discover(folder()).unwrap().run(2, &()).unwrap();
    assert!(report.succeeded(), "{}", report.summary(20));
    let total = report.total();
    let other: Vec<_> = report.verdicts().filter(|(_, verdict)| other_reason(verdict)).collect();
    assert!(other.is_empty(), "{other:#?}");
    assert!(total.executed >= 400 && total.refused >= 50, "{}", report.summary(0));
    assert_eq!(total.skipped, [(Skip::DestroyedFeeRecipient, 6)].into(), "{}", report.summary(0));
}

fn other_reason(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Passed(statetests::Passed::Refused { same_reason: false, .. }))
}

fn first_post<'a>(fixture: &'a mut Value, fork: &str) -> &'a mut Value {
    let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
    &mut test["post"][fork][0]
}

#[test]
fn a_wrong_state_root_is_a_failure_that_names_both_roots() {
    let mut fixture = read("transfers/to_a_new_account.json");
    let right = first_post(&mut fixture, "Prague")["hash"].clone();
    first_post(&mut fixture, "Prague")["hash"] = Value::from(format!("0x{}", "11".repeat(32)));
    let Failure::Root { expected, actual, differences } = failure(&fixture) else { panic!() };
    assert_eq!(expected.0, [0x11; 32]);
    assert_eq!(Value::from(actual.to_string()), right);
    assert!(differences.is_empty(), "the state in full is the right one");
}

#[test]
fn a_wrong_state_is_explained_by_what_differs() {
    let mut fixture = read("transfers/to_a_new_account.json");
    let post = first_post(&mut fixture, "Prague");
    post["hash"] = Value::from(format!("0x{}", "11".repeat(32)));
    let recipient = crate::spec::NOBODY.to_string().to_lowercase();
    post["state"][&recipient]["balance"] = Value::from("0x1234");
    let failure = failure(&fixture).to_string();
    assert!(failure.contains("balance") && failure.contains("must be 4660"), "{failure}");
}

#[test]
fn wrong_logs_are_a_failure() {
    let mut fixture = read("logs/with_topics_and_data.json");
    first_post(&mut fixture, "Osaka")["logs"] = Value::from(format!("0x{}", "22".repeat(32)));
    assert!(matches!(failure(&fixture), Failure::Logs { count: 5, .. }));
}

#[test]
fn an_expected_exception_that_does_not_happen_is_a_failure() {
    let mut fixture = read("transfers/to_a_new_account.json");
    first_post(&mut fixture, "Cancun")["expectException"] = Value::from("TR_NoFunds");
    assert_eq!(failure(&fixture), Failure::NotRefused { expected: "TR_NoFunds".into() });
}

#[test]
fn a_refusal_that_nobody_expects_is_a_failure() {
    let mut fixture = read("refused/nonce_too_low.json");
    first_post(&mut fixture, "Cancun").as_object_mut().unwrap().remove("expectException");
    let Failure::Refused(reason) = failure(&fixture) else { panic!() };
    assert!(reason.contains("nonce too low"), "{reason}");
}

#[test]
fn a_refusal_for_another_reason_passes_and_is_counted() {
    let mut fixture = read("refused/nonce_too_low.json");
    first_post(&mut fixture, "Cancun")["expectException"] =
        Value::from("TransactionException.INSUFFICIENT_ACCOUNT_FUNDS");
    let report = run(&[("one.json", &text_of(&fixture))]);
    assert!(report.succeeded());
    assert_eq!(report.total().other_reason, 1);
}

#[test]
fn a_transaction_that_cannot_be_written_is_refused_before_it_exists() {
    let too_large = format!("0x:bigint 0x1{}", "0".repeat(64));
    let wide = |field: &str, value: Value| {
        let mut fixture = read("transfers/without_bytes.json");
        let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
        test["transaction"][field] = value;
        fixture
    };
    for mut fixture in [
        wide("value", json!([too_large])),
        wide("nonce", json!(too_large)),
        wide("gasLimit", json!(["0x10000000000000000", "0x10000000000000000"])),
        wide("maxFeePerGas", json!("0x100000000000000000000000000000000")),
    ] {
        let report = run(&[("one.json", &text_of(&fixture))]);
        assert_eq!(report.total().passed(), 0);
        assert!(report.failures().all(|(_, failure)| matches!(failure, Failure::Refused(_))));
        let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
        for posts in test["post"].as_object_mut().unwrap().values_mut() {
            for post in posts.as_array_mut().unwrap() {
                post["expectException"] = "TR_RLP_WRONGVALUE".into();
            }
        }
        let report = run(&[("one.json", &text_of(&fixture))]);
        assert_eq!((report.total().refused, report.total().failed), (6, 0), "{}", report.summary(9));
    }
}

#[test]
fn a_transaction_of_another_sender_is_a_failure() {
    let mut fixture = read("transfers/to_a_new_account.json");
    let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
    test["transaction"]["sender"] = Value::from(crate::spec::OTHER.to_string());
    let report = run(&[("one.json", &text_of(&fixture))]);
    assert_eq!(report.total().passed(), 0);
    assert!(report.failures().all(|(_, failure)| matches!(failure, Failure::Sender { .. })));
}

#[test]
fn malformed_fixtures_are_failures_with_their_file_and_never_panics() {
    let good = text_of(&read("transfers/to_a_new_account.json"));
    let index = good.replace("\"data\": 0", "\"data\": 7").replace("\"txbytes\"", "\"other\"");
    let files = [
        ("a/empty.json", String::new()),
        ("a/array.json", "[]".into()),
        ("a/cut.json", good[..good.len() / 2].to_owned()),
        ("a/deep.json", "[".repeat(100_000)),
        ("a/index.json", index),
        ("a/number.json", good.replace("\"0x3e8\"", "\"0xzz\"")),
        ("a/transaction.json", r#"{"t":{"transaction":5,"post":{}}}"#.into()),
        ("a/txbytes.json", good.replace("\"0x02f8", "\"0xZZf8")),
        ("b/good.json", good),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let report = run(&files);
    for (file, _) in &files[..8] {
        let of_file = |(case, failure): &(&str, &Failure)| {
            case.starts_with(file) && matches!(failure, Failure::Malformed(_))
        };
        assert!(report.failures().any(|entry| of_file(&entry)), "{file}\n{}", report.summary(50));
    }
    assert!(report.failures().all(|(case, _)| case.starts_with("a/")));
    assert_eq!((report.folders()["b"].passed(), report.folders()["b"].failed), (3, 0));
}

#[test]
fn a_destroyed_fee_recipient_excuses_no_other_difference() {
    let mut fixture = read("selfdestruct/of_the_fee_recipient.json");
    first_post(&mut fixture, "Cancun")["hash"] = Value::from(format!("0x{}", "33".repeat(32)));
    assert!(matches!(failure(&fixture), Failure::Root { .. }));
}

#[test]
fn what_is_no_test_of_this_chain_is_skipped_and_counted_by_reason() {
    let good = read("transfers/to_a_new_account.json");
    let change = |change: &dyn Fn(&mut Value)| {
        let mut fixture = good.clone();
        change(fixture.as_object_mut().unwrap().values_mut().next().unwrap());
        text_of(&fixture)
    };
    let london = change(&|test| {
        let post = test["post"]["Cancun"].take();
        test["post"] = json!({ "London": post });
    });
    let blobs = change(&|test| test["transaction"]["maxFeePerBlobGas"] = "0x1".into());
    let blob_fee = change(&|test| test["env"]["currentExcessBlobGas"] = "0x4000000".into());
    let time = change(&|test| test["env"]["currentTimestamp"] = "0xffffffffffffffff".into());
    let unsigned = text_of(&good).replace("\"txbytes\"", "\"other\"").replace("\"secretKey\"", "\"other\"");
    let long = change(&|test| {
        test["transaction"]["data"] = json!([format!("0x{}", "01".repeat(128 << 10))]);
        let posts = test["post"].as_object_mut().unwrap().values_mut();
        posts.for_each(|posts| drop(posts[0].as_object_mut().unwrap().remove("txbytes")));
    });
    let empty = change(&|test| test["pre"][NOWHERE] = json!({ "balance": "0x0" }));
    let storage =
        change(&|test| test["pre"][NOWHERE] = json!({ "balance": "0x1", "storage": { "0x1": "0x1" } }));
    let history = change(&|test| {
        test["pre"]["0x0000f90827f1c53a10cb7a02335b175320002935"] =
            json!({ "nonce": "0x1", "balance": "0x0", "code": "0x00", "storage": {} });
    });
    let report = run(&[
        ("london.json", &london),
        ("blobs.json", &blobs),
        ("blob_fee.json", &blob_fee),
        ("time.json", &time),
        ("unsigned.json", &unsigned),
        ("long.json", &long),
        ("empty.json", &empty),
        ("storage.json", &storage),
        ("history.json", &history),
        ("blockchain.json", r#"{"t":{"blocks":[],"pre":{}}}"#),
    ]);
    let skipped = &report.total().skipped;
    assert_eq!(skipped[&Skip::Fork("London".into())], 1);
    assert_eq!(skipped[&Skip::Blobs], 3);
    assert_eq!(skipped[&Skip::BlobBaseFee], 3);
    assert_eq!(skipped[&Skip::Environment("timestamp")], 3);
    assert_eq!(skipped[&Skip::Unsigned], 3);
    assert_eq!(skipped[&Skip::TransactionTooLong], 3);
    assert_eq!(skipped[&Skip::EmptyAccount], 3);
    assert_eq!(skipped[&Skip::StorageAlone], 3);
    assert_eq!(skipped[&Skip::HistoryContract], 2);
    assert_eq!(skipped[&Skip::OtherKind], 1);
    // Where there is nothing but skips nothing is proven; the history contract's Cancun case fails for its state.
    assert_eq!(report.total().passed(), 0);
    assert!(!report.succeeded());
}

#[test]
fn a_state_that_holds_the_beacon_root_of_a_block_of_ethereum_passes_and_is_counted() {
    let beacon = "0x000f3df6d732807ef1319fb7b8bb8522d0beac02";
    let mut fixture = read("block/environment.json");
    let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
    test["pre"][beacon] = json!({ "nonce": "0x1", "balance": "0x0", "code": "0x00", "storage": {} });
    let plain = run(&[("one.json", &text_of(&fixture))]);
    // Neither with nor without the write is this the fixture's state.
    assert_eq!((plain.total().passed(), plain.total().failed), (0, 3));
    let actual = |written: bool| {
        let mut fixture = fixture.clone();
        let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
        let seconds = 1_700_000_000_u64;
        if written {
            test["pre"][beacon]["storage"][format!("{:#x}", seconds % 8191)] =
                Value::from(format!("{seconds:#x}"));
        }
        match run(&[("one.json", &text_of(&fixture))]).failures().next().unwrap().1 {
            Failure::Root { actual, .. } => *actual,
            other => panic!("{other}"),
        }
    };
    let (written, plain) = (actual(true), actual(false));
    assert_ne!(written, plain);
    let test = fixture.as_object_mut().unwrap().values_mut().next().unwrap();
    test["post"].as_object_mut().unwrap().retain(|fork, _| fork == "Cancun");
    test["post"]["Cancun"][0]["hash"] = Value::from(written.to_string());
    let report = run(&[("one.json", &text_of(&fixture))]);
    assert_eq!((report.total().passed(), report.total().beacon_root), (1, 1), "{}", report.summary(5));
}

#[test]
fn a_filter_runs_the_cases_that_a_failure_names() {
    let suite = || Suite::discover(folder()).unwrap();
    let report = suite()
        .filtered("transfers/to_a_new_account.json::to_a_new_account::Prague/d0g0v0")
        .run(1, &())
        .unwrap();
    assert_eq!(report.total().ran(), 1);
    let nothing = suite().filtered("no such case").run(1, &()).unwrap();
    assert_eq!(nothing.total().ran(), 0);
    assert!(!nothing.succeeded(), "a run of nothing proves nothing");
}

#[test]
fn a_filter_leaves_malformed_files_alone_that_it_does_not_name() {
    let good = text_of(&read("transfers/to_a_new_account.json"));
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("good.json"), good).unwrap();
    fs::write(folder.path().join("bad.json"), "{").unwrap();
    let failed = |filter: &str| {
        Suite::discover(folder.path()).unwrap().filtered(filter).run(1, &()).unwrap().total().failed
    };
    assert_eq!(
        (failed("good.json"), failed("Prague"), failed("bad"), failed("bad.json::x"), failed("")),
        (0, 0, 1, 1, 1)
    );
}

/// Exit code and output of the program.
fn program(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_statetests"));
    let output = command.args(arguments).env_remove("TANDEM_STATE_TESTS").output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_program_ends_with_0_only_when_something_ran_and_nothing_failed() {
    let temporary = TempDir::new().unwrap();
    let (report, wrong) = (temporary.path().join("report.json"), temporary.path().join("wrong.json"));
    let mut fixture = read("transfers/to_a_new_account.json");
    first_post(&mut fixture, "Prague")["hash"] = Value::from(format!("0x{}", "11".repeat(32)));
    fs::write(&wrong, text_of(&fixture)).unwrap();
    let (refused, wrong) = (folder().join("refused"), wrong.to_str().unwrap());
    let refused = refused.to_str().unwrap();

    let (code, text) = program(&[refused, "--jobs", "1", "--json", report.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let report: Value = serde_json::from_str(&fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(report["total"]["failed"], 0);
    assert!(report["total"]["passed"].as_u64().unwrap() > 0);

    assert_eq!(program(&[refused, "--filter", "nothing has this name"]).0, 1);
    let (code, text) = program(&[wrong]);
    assert_eq!(code, 1);
    assert!(text.contains("--filter 'wrong.json::to_a_new_account::Prague/d0g0v0'"), "{text}");
    assert_eq!(program(&["/nowhere"]).0, 2);
    assert_eq!(program(&[]).0, 2);
}

#[test]
fn the_report_for_programs_holds_every_case_with_its_verdict() {
    let report = Suite::discover(&folder().join("refused")).unwrap().run(1, &()).unwrap();
    let json = report.to_json();
    assert_eq!(json["cases"].as_array().unwrap().len() as u64, report.total().ran());
    assert_eq!(json["total"]["refused"], report.total().refused);
    assert!(json["cases"].as_array().unwrap().iter().all(|case| case["verdict"] == "passed"));
}

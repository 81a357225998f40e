//! Ages against what real Dovecot made of them (`tests/oracle/times-2.3.jsonl`).

use std::time::Duration;

use nfs_hostchange::dovecot::age::parse_age;
use serde_json::Value;

#[test]
fn every_age_is_read_or_refused_as_dovecot_does() {
    let rows = include_str!("oracle/times-2.3.jsonl");
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).expect("the oracle is JSON");
        let input = row["input"].as_str().expect("each row has its input");
        let expected = row["ok"]
            .as_bool()
            .expect("each row has Dovecot's verdict")
            .then(|| Duration::from_secs(row["seconds"].as_u64().expect("what Dovecot read")));
        let ours = parse_age(input.as_bytes());
        count += 1;
        if ours.as_ref().ok() != expected.as_ref() {
            wrong.push(format!("{input:?}: {ours:?}, Dovecot {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 250, "only {count} rows in the oracle");
}

#[test]
fn ages_that_are_not_text_are_refused_with_a_reason() {
    for input in [
        &b"7\xffd"[..],
        b"\0",
        b"7d\0",
        b"\xc2\xa07d",
        b"99999999999999999999d",
    ] {
        let error = parse_age(input).expect_err("not a time");
        assert!(error.to_string().contains("is not a time"), "{error}");
    }
}

//! `lowbit bench --serve` against `lowbit serve`.

mod common;

use common::{good, lowbit, refused, run};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Stdio};

/// A server of the model inside the program.
struct Serving(Child, String);

impl Serving {
    fn begin(args: &[&str]) -> Self {
        let mut command = lowbit();
        command
            .args(["serve", "--port", "0", "--threads", "1"])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        Serving(child, format!("http://{address}"))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn rates_are_swept_and_every_time_is_told() {
    let home = tempfile::tempdir().expect("a directory");
    let serving = Serving::begin(&[]);
    let asked = [
        "bench",
        "--serve",
        &serving.1,
        "--requests",
        "6",
        "--prompt-tokens",
        "40",
        "--max-tokens",
        "8",
        "--parallel",
        "2",
    ];
    let sweep = [&asked[..], &["--rates", "50,all", "--goodput", "ttft:60000,tpot:60000"]].concat();
    let swept = run(home.path(), &sweep);
    let (text, said) = (String::from_utf8_lossy(&swept.stdout), String::from_utf8_lossy(&swept.stderr));
    assert!(swept.status.success() && said.contains("rate all: 6 requests"), "{said}");
    assert_eq!(text.matches("Serving Benchmark Result").count(), 2, "{text}");
    for line in [
        "Successful requests:                     6",
        "Total generated tokens:                  48",
        "P99 TTFT (ms):",
        "Median TPOT (ms):",
        "P90 ITL (ms):",
        "| all |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&good(home.path(), &[&["--json"], &sweep[..]].concat())).expect("JSON");
    let records = json["records"].as_array().expect("records");
    assert_eq!((records.len(), &json["asked"]["parallel"]), (2, &Value::from(2)));
    for record in records {
        let measure =
            |name: &str| record["measures"][name]["value"].as_f64().unwrap_or_else(|| panic!("{name}: {record}"));
        assert_eq!(record["model"], Value::from("lowbit"));
        assert_eq!(record["detail"]["samples"]["ttft_seconds"].as_array().map(Vec::len), Some(6));
        assert!(measure("ttft_seconds") > 0.0 && measure("ttft_p99_seconds") >= measure("ttft_seconds"));
        assert!(measure("e2el_seconds") >= measure("ttft_seconds") && measure("failed_requests") == 0.0);
        assert_eq!(measure("goodput"), measure("request_throughput"));
    }
    std::fs::write(home.path().join("served.json"), json.to_string()).expect("written");
    let report = run(home.path(), &["report", "served.json", "--out", "report"]);
    assert!(report.status.success(), "{report:?}");
    let markdown = std::fs::read_to_string(home.path().join("report/report.md")).expect("written");
    assert!(markdown.contains("serve/all") && markdown.contains("Goodput"), "{markdown}");
}

#[test]
fn requests_that_fail_are_counted_and_servers_that_do_not_answer_are_told() {
    let home = tempfile::tempdir().expect("a directory");
    let serving = Serving::begin(&["--max-queue", "1", "--parallel", "1"]);
    let asked = ["bench", "--serve", &serving.1, "--requests", "12", "--prompt-tokens", "100", "--max-tokens", "64"];
    let text = good(home.path(), &asked);
    assert!(
        !text.contains("Failed requests:                         0") && text.contains(" failed: status 429"),
        "{text}"
    );
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let free = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    refused(home.path(), &["bench", "--serve", &free], 5, &["no server answers", "lowbit serve MODEL"]);
    refused(home.path(), &["bench", "--serve", "https://a"], 2, &["TLS"]);
    for args in [&["--rates", "inf"][..], &["--goodput", "ttft"], &["--requests", "0"]] {
        let wrong = run(home.path(), &[&["bench", "--serve", &free], args].concat());
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    }
    let wrong = run(home.path(), &["bench", "model", "--serve", &free]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

//! The binary itself: its flags, its banner, its exit codes, its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use zepto_flight::ports::Caller;

const BINARY: &str = env!("CARGO_BIN_EXE_zepto_flight_server");

/// A running server, killed when dropped.
struct Running {
    child: Child,
    banner: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let is_somewhere = args.iter().any(|arg| ["--backend", "--data-dir"].contains(arg));
        let mut child = Command::new(BINARY)
            .args(["--flight-port", "0", "--http-port", "0"])
            .args(if is_somewhere { &[][..] } else { &["--backend", "memory:"] })
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        while let Some(Ok(line)) = lines.next() {
            banner.push_str(&line);
            banner.push('\n');
            if line.contains("read_all") || line.contains("data:") && banner.contains("flight:  off") {
                break;
            }
        }
        Self { child, banner }
    }

    fn address(&self, protocol: &str) -> String {
        let line = self.banner.lines().find(|line| line.trim_start().starts_with(protocol)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn exit_code(&mut self) -> i32 {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(began.elapsed() < Duration::from_secs(30), "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn output(args: &[&str]) -> (i32, String, String) {
    let output = Command::new(BINARY).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_sample_trades_and_stops_when_told() {
    let mut server = Running::start(&["--ticks", "1000", "--log-format", "json"]);
    for part in [
        "zepto-flight 0.1.0",
        "grpc://127.0.0.1:",
        "http://127.0.0.1:",
        "memory",
        "trades (1000 rows)",
        "pyarrow.flight",
    ] {
        assert!(server.banner.contains(part), "{part} in\n{}", server.banner);
    }
    let client = crate::harness::connect(&server.address("flight:"));
    let tables = client.query.tables(Caller::default()).await.unwrap();
    assert_eq!((tables[0].name.as_str(), tables[0].rows), ("trades", Some(1000)));
    let response =
        reqwest::Client::new().post(server.address("http:")).body("SELECT * FROM trades LIMIT 1").send().await.unwrap();
    let body = response.text().await.unwrap();
    assert!(body.contains("[[1,150.0,100.0,\"2024-03-23T22:56:07.000000000\"]]"), "{body}");
    server.signal("-TERM");
    assert_eq!(server.exit_code(), 0);
    let mut log = String::new();
    server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let requests: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let query = requests.iter().find(|line| line["verb"] == "POST /").unwrap();
    assert_eq!(
        (query["status"].as_str(), query["kind"].as_str(), query["rows"].as_u64()),
        (Some("ok"), Some("read"), Some(1))
    );
    for key in ["request_id", "peer", "bytes", "duration_us"] {
        assert!(!query[key].is_null(), "{key} in {query}");
    }
    assert!(!log.contains("LIMIT 1"), "SQL text is not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_protocol_alone_and_other_backends() {
    let mut http_only = Running::start(&["--protocols", "http", "--backend", "stub:"]);
    assert!(http_only.banner.contains("flight:  off"), "{}", http_only.banner);
    assert!(http_only.banner.contains("stub"), "{}", http_only.banner);
    let health = reqwest::get(format!("{}/health", http_only.address("http:"))).await.unwrap().text().await.unwrap();
    assert!(health.contains("\"backend\":\"stub:\""), "{health}");
    http_only.signal("-INT");
    assert_eq!(http_only.exit_code(), 0);
    let inner = Running::start(&["--ticks", "10"]);
    let outer = Running::start(&["--backend", &inner.address("flight:")]);
    assert!(outer.banner.contains("trades (10 rows)"), "{}", outer.banner);
    let response =
        reqwest::Client::new().post(outer.address("http:")).body("SELECT count(*) FROM trades").send().await.unwrap();
    assert!(response.text().await.unwrap().contains("[[10]]"));
}

#[test]
fn settings_are_checked_before_anything_starts() {
    for (args, words) in [
        (vec!["--flight-prt", "1"], vec!["--flight-port"]),
        (vec!["--protocols", "smtp"], vec!["smtp", "flight"]),
        (vec!["--backend", "ftp://x"], vec!["ftp://x", "memory:"]),
        (vec!["--http-host", "0.0.0.0"], vec!["--allow-plaintext-http"]),
        (vec!["--log-level", "a=b=c"], vec!["--log-level"]),
        (vec!["extra"], vec!["extra"]),
    ] {
        let (code, _, error) = output(&args);
        assert_eq!(code, 2, "{args:?}: {error}");
        words.iter().for_each(|word| assert!(error.contains(word), "{word} in {error}"));
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, _, error) = output(&["--flight-port", &port, "--http-port", "0"]);
    assert_eq!(code, 1);
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    let (code, help, _) = output(&["--help"]);
    assert_eq!(code, 0);
    for part in ["--flight-port", "8815", "--memory-bytes-max", "Milliseconds", "ZEPTO_TICKS"] {
        assert!(help.contains(part), "{part} in --help");
    }
    let printed = Command::new(BINARY).arg("--print-config").env("ZEPTO_TICKS", "7").output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("ticks = 7  # environment, ZEPTO_TICKS"), "{printed}");
    let again: Result<toml::Table, _> = printed.parse();
    assert!(again.is_ok(), "what is printed can be a settings file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_secrets_unless_told_otherwise() {
    for (args, shown) in [(&["--log-format", "json"][..], false), (&["--log-format", "json", "--log-sql"], true)] {
        let mut server = Running::start(args);
        let client = crate::harness::connect(&server.address("http:"));
        for sql in ["CREATE USER bob WITH PASSWORD 'hunter2'", "SELECT CAST('hunter2' AS INT64)", "SELECT 'hunter2"] {
            client.query.query(zepto_flight::ports::Query::change(sql)).await.unwrap_err();
        }
        server.signal("-TERM");
        assert_eq!(server.exit_code(), 0);
        let mut log = String::new();
        server.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(log.contains("hunter2"), shown, "{log}");
        assert!(shown || log.contains("CREATE USER bob WITH PASSWORD ?"), "{log}");
    }
}

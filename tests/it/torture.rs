//! Random SQL, random Arrow bytes and random frames against the binary, while somebody else asks it small questions.
//!
//! Whatever comes in: the process lives, it answers others, it holds no more memory than its account and a quarter, and it
//! calls nothing an internal error. A short run is part of the tests; `make torture` runs it for as long as
//! `ZEPTO_TORTURE_MS` says, and is strict about the time of an answer.

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TABLE_BYTES: u64 = 200_000_000;
const QUERY_BYTES: u64 = 100_000_000;

/// A process that is killed with the test.
struct Server {
    child: Child,
    http: String,
    flight: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_zepto_flight_server"))
            .args(["--flight-port", "0", "--http-port", "0", "--ticks", "10000", "--query-timeout-ms", "2000"])
            .args(["--backend", "memory:"])
            .args(["--memory-bytes-max", &TABLE_BYTES.to_string()])
            .args(["--query-memory-bytes-max", &QUERY_BYTES.to_string()])
            .args(["--log-level", "off"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let banner: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.contains("read_all")).collect();
        let address = |protocol: &str| {
            let line = banner.iter().find(|line| line.trim_start().starts_with(protocol)).unwrap();
            line.split_whitespace().last().unwrap().to_owned()
        };
        Self { http: address("http:"), flight: address("flight:").replace("grpc://", ""), child }
    }

    /// Bytes of memory that the process holds now.
    fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }
}

/// Numbers that are random enough, and the same for the same seed (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

fn expression(random: &mut Random, depth: usize) -> String {
    if depth == 0 {
        let leaves =
            ["symbol", "price", "volume", "timestamp", "1", "2.5", "-9223372036854775808", "'x'", "NULL", "true"];
        return random.pick(&leaves).to_owned();
    }
    let mut inner = || expression(random, depth - 1);
    let (a, b, c) = (inner(), inner(), inner());
    match random.below(10) {
        0..=2 => format!("({a} {} {b})", random.pick(&["+", "-", "*", "/", "%", "=", "<", "AND", "OR", "||"])),
        3 => format!("CASE WHEN {a} THEN {b} ELSE {c} END"),
        4 => format!("CAST({a} AS {})", random.pick(&["INT64", "FLOAT64", "STRING", "TIMESTAMP", "DECIMAL(38,10)"])),
        5 => {
            format!("{}({a}, {b})", random.pick(&["coalesce", "nullif", "power", "repeat", "concat", "round", "lpad"]))
        }
        6 => {
            format!("{}({a})", random.pick(&["sum", "min", "max", "avg", "count", "abs", "length", "array_agg", "md5"]))
        }
        7 => format!("{a} IN ({b}, {c})"),
        8 => format!("sum({a}) OVER (PARTITION BY {b} ORDER BY {c})"),
        _ => format!("(SELECT max({a}) FROM trades WHERE {b})"),
    }
}

fn select(random: &mut Random, depth: usize) -> String {
    let mut sql = format!("SELECT {} AS a, {} AS b", expression(random, 2), expression(random, 3));
    let from = match random.below(if depth == 0 { 2 } else { 6 }) {
        0 | 1 => "trades".to_owned(),
        2 => format!("({}) s", select(random, depth - 1)),
        3 => "trades x JOIN trades USING (symbol)".to_owned(),
        4 => "trades CROSS JOIN generate_series(1, 1000000)".to_owned(),
        _ => format!("(WITH w AS ({}) SELECT * FROM w, w v) s", select(random, depth - 1)),
    };
    let _ = write!(sql, " FROM {from}");
    for (clause, odds) in [("WHERE", 3), ("GROUP BY", 4), ("HAVING", 8), ("ORDER BY", 3)] {
        if random.below(odds) == 0 {
            let _ = write!(sql, " {clause} {}", expression(random, 2));
        }
    }
    if random.below(4) == 0 {
        let _ = write!(sql, " UNION ALL SELECT {0}, {0}", expression(random, 1));
    }
    sql
}

fn statement(random: &mut Random) -> String {
    match random.below(12) {
        0 => format!("DELETE FROM trades WHERE {}", expression(random, 2)),
        1 => format!("UPDATE trades SET {} = {}", random.pick(&["price", "volume", "symbol"]), expression(random, 2)),
        2 => format!("INSERT INTO trades {}", select(random, 1)),
        3 => "INSERT INTO trades SELECT value % 9, value, value, NULL FROM generate_series(1, 200000)".to_owned(),
        4 => format!("CREATE OR REPLACE TABLE u AS {}", select(random, 1)),
        5 => random
            .pick(&["ALTER TABLE trades ADD COLUMN z INT64", "ALTER TABLE trades DROP COLUMN z", "TRUNCATE u"])
            .to_owned(),
        6 => {
            // Not SQL, but made of it.
            let sql = select(random, 2);
            let cut = random.below(sql.len());
            sql[cut..].chars().chain(sql[..cut].chars()).collect()
        }
        _ => select(random, 2),
    }
}

/// Sends `body`, and fails for an answer that is a bug. No answer is none: the server may cut a client off.
async fn post(client: &reqwest::Client, url: &str, body: Vec<u8>, what: &str) {
    let request = client.post(url).header("x-zepto-timeout-ms", "1500").timeout(Duration::from_secs(60)).body(body);
    if let Ok(answer) = request.send().await {
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert_ne!(status.as_u16(), 500, "{what}: {text}");
    }
}

async fn send_sql(http: String, seed: u64) {
    let (client, mut random) = (reqwest::Client::new(), Random(seed));
    loop {
        let sql = statement(&mut random);
        post(&client, &http, sql.clone().into_bytes(), &sql).await;
    }
}

fn ipc_stream(random: &mut Random) -> Vec<u8> {
    let rows = random.below(2_000) as i64;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let floats: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|n| n as f64)));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|n| "x".repeat((n % 50) as usize))));
    let batch = RecordBatch::try_from_iter([("n", numbers), ("f", floats), ("t", texts)]).unwrap();
    let compression = [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)][random.below(3)];
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

async fn send_ipc(http: String, seed: u64) {
    let (client, mut random) = (reqwest::Client::new(), Random(seed));
    loop {
        let mut bytes = ipc_stream(&mut random);
        for _ in 0..random.below(6) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        if random.below(5) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        let url = format!("{http}/insert/arrow?table=t{}", random.below(3));
        post(&client, &url, bytes, &format!("Arrow bytes of seed {seed}")).await;
    }
}

async fn send_frames(flight: String, seed: u64) {
    let mut random = Random(seed);
    loop {
        let Ok(mut connection) = TcpStream::connect(&flight).await else { continue };
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        for _ in 0..random.below(200) {
            // A frame's head: length, type, flags, stream (RFC 9113 section 4.1).
            let length = [0, 4, 5, 8, random.below(300)][random.below(5)];
            bytes.extend([0, (length >> 8) as u8, length as u8, random.below(11) as u8, random.next() as u8, 0, 0, 0]);
            bytes.push((random.below(20) * 2 + 1) as u8);
            bytes.extend((0..length).map(|_| random.next() as u8));
        }
        let _ = connection.write_all(&bytes).await;
        let _ = timeout(Duration::from_millis(50), connection.read(&mut [0; 1024])).await;
    }
}

/// Returns how long the run is to be, where somebody says so.
#[expect(clippy::disallowed_methods, reason = "a test has no settings")]
fn given_ms() -> Option<u64> {
    std::env::var("ZEPTO_TORTURE_MS").ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn random_requests_stop_nothing() {
    let given = given_ms();
    let length = Duration::from_millis(given.unwrap_or(4_000));
    // Beside all other tests, on a machine that may have one core left, only a hang can be told from a wait.
    let answered_within = if given.is_some() { Duration::from_secs(2) } else { Duration::from_secs(30) };
    let mut server = Server::start();
    let at_rest = server.resident_bytes();
    let seed = given.map_or(1, |ms| ms | 1);
    let mut tasks = Vec::new();
    for task in 0..3 {
        tasks.push(tokio::spawn(send_sql(server.http.clone(), seed + 1_000 * task)));
        tasks.push(tokio::spawn(send_ipc(server.http.clone(), seed + 1_000 * task + 1)));
        tasks.push(tokio::spawn(send_frames(server.flight.clone(), seed + 1_000 * task + 2)));
    }
    let (client, began, mut most) = (reqwest::Client::new(), Instant::now(), 0);
    while began.elapsed() < length {
        let asked = client.post(&server.http).body("SELECT 1 AS one").timeout(answered_within).send();
        let answer = asked.await.expect("a small query is answered beside all of that");
        assert!(answer.text().await.unwrap().contains("one"));
        most = most.max(server.resident_bytes());
        assert!(server.child.try_wait().unwrap().is_none(), "the process ended");
        if let Some(ended) = tasks.iter_mut().find(|task| task.is_finished()) {
            ended.await.expect("no answer is an internal error");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let account = (TABLE_BYTES + QUERY_BYTES) / 4 * 5;
    assert!(most < at_rest + account, "{most} bytes are held, {at_rest} at rest");
}

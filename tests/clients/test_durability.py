"""A server that is killed, filled up and started again, as its clients see it."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from conftest import Server, start, stop, without

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "clients.md"
KILLS = int(os.environ.get("ZEPTO_TEST_KILLS", "100"))


def feed_class():
    """The class that docs/clients.md shows."""
    block = re.search(r"```python\n(import json, time\n.*?)^feed = ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict = {}
    exec(block.group(1), names)  # noqa: S102
    return names["Feed"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Restarting:
    """A server on one directory and one pair of ports."""

    def __init__(self, directory, *flags: str):
        self.flags = ["--data-dir", str(directory), *flags]
        self.flight, self.http = free_port(), free_port()
        self.server: Server | None = None

    def start(self) -> Server:
        self.server = start(*self.flags, ports=(self.flight, self.http))
        return self.server

    def kill(self) -> None:
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()

    def sql(self, text: str):
        request = urllib.request.Request(self.server.http, data=text.encode())
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["data"]


def rows(writer: int, number: int) -> pa.Table:
    count = 1 + (number * 7 + writer) % 50
    return pa.table({"w": pa.array([writer] * count, pa.int64()), "n": pa.array([number] * count, pa.int64())})


def test_nothing_is_lost_and_nothing_comes_twice_while_the_server_is_killed(tmp_path):
    restarting = Restarting(tmp_path / "data")
    restarting.start()
    feed = feed_class()
    acknowledged = [0] * 4
    is_over = threading.Event()
    failures = []

    def write(writer: int):
        try:
            mine = feed(f"grpc://127.0.0.1:{restarting.flight}", "t", f"writer {writer}")
            while not is_over.is_set():
                number = acknowledged[writer] + 1
                answer = mine.append(rows(writer, number), offset=str(number))
                assert answer["writer"]["sequence"] == number
                acknowledged[writer] = number
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    chance = random.Random(1)
    for _ in range(KILLS):
        time.sleep(chance.random() * 0.3)
        restarting.kill()
        known = list(acknowledged)
        restarting.start()
        if sum(known) > 0:
            found = dict(restarting.sql("SELECT w, max(n) FROM t GROUP BY w"))
            assert all(found.get(writer, 0) >= number for writer, number in enumerate(known)), (found, known)
    is_over.set()
    for thread in threads:
        thread.join(timeout=60)
    assert not failures, failures
    assert min(acknowledged) > KILLS // 10, acknowledged
    expected = {(w, n): rows(w, n).num_rows for w in range(4) for n in range(1, acknowledged[w] + 1)}
    found = {(w, n): count for w, n, count in restarting.sql("SELECT w, n, count(*) FROM t GROUP BY w, n")}
    assert found == expected
    # In the order in which they came.
    for writer in range(4):
        numbers = [n for (n,) in restarting.sql(f"SELECT n FROM t WHERE w = {writer}")]
        assert numbers == sorted(numbers)
        position = feed(restarting.server.flight, "t", f"writer {writer}").position()
        assert position == (acknowledged[writer], str(acknowledged[writer]))
    stop(restarting.server)


def test_the_sample_is_kept_and_not_made_twice(tmp_path):
    restarting = Restarting(tmp_path / "data", "--ticks", "1000")
    restarting.start()
    restarting.sql("DELETE FROM trades WHERE symbol = 1")
    before = restarting.sql("SELECT * FROM trades")
    stop(restarting.server)
    restarting.start()
    assert restarting.sql("SELECT * FROM trades") == before
    stop(restarting.server)


def test_a_directory_has_one_process(tmp_path):
    directory = tmp_path / "data"
    restarting = Restarting(directory)
    server = restarting.start()
    binary = os.environ["ZEPTO_TEST_SERVER"]
    command = [binary, "--flight-port", "0", "--http-port", "0", "--data-dir"]
    second = subprocess.run([*command, directory], capture_output=True, text=True)
    assert second.returncode == 1
    assert f"process {server.process.pid}" in second.stderr
    # A process that was stopped still has it.
    server.process.send_signal(signal.SIGSTOP)
    assert subprocess.run([*command, directory], capture_output=True).returncode == 1
    server.process.send_signal(signal.SIGCONT)
    stop(server)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    third = subprocess.run([*command, foreign], capture_output=True, text=True)
    assert third.returncode == 2
    assert "letter.txt" in third.stderr
    assert os.listdir(foreign) == ["letter.txt"]
    newer = json.loads((directory / "FORMAT").read_text()) | {"format": 9, "min_reader": 9}
    (directory / "FORMAT").write_text(json.dumps(newer))
    fourth = subprocess.run([*command, directory], capture_output=True, text=True)
    assert fourth.returncode == 2
    assert "newer version" in fourth.stderr


@contextlib.contextmanager
def tmpfs_of(small: pathlib.Path, megabytes: int):
    """A small disk."""
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", small], capture_output=True
    )
    if mounted.returncode != 0:
        without(f"small disk: {mounted.stderr.decode()}")
    try:
        yield small
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_full_disk_refuses_and_recovers(tmp_path):
    with tmpfs_of(tmp_path / "small", 16) as small:
        fill(small)


def fill(small: pathlib.Path) -> None:
    restarting = Restarting(small / "data")
    restarting.start()
    restarting.sql("CREATE TABLE t (n BIGINT)")
    restarting.sql("CREATE TABLE old (n BIGINT)")
    restarting.sql("INSERT INTO old VALUES (1), (2), (3)")
    stored, refused, many = 0, 0, 20_000
    while refused < 20:
        lines = "\n".join(["n", *(str(stored * many + at) for at in range(many))])
        try:
            insert = urllib.request.Request(f"{restarting.server.http}/insert/csv?table=t", data=lines.encode())
            urllib.request.urlopen(insert)
            stored += 1
        except urllib.error.HTTPError as error:
            assert error.code == 429, error.read()
            assert "disk" in error.read().decode()
            refused += 1
    assert restarting.sql("SELECT count(*) FROM t") == [[stored * many]]
    # What takes away has some space kept for it.
    restarting.sql("DELETE FROM old WHERE n = 1")
    restarting.sql("DROP TABLE old")
    restarting.kill()
    restarting.start()
    assert restarting.sql("SELECT count(*), count(DISTINCT n) FROM t") == [[stored * many, stored * many]]
    assert len(restarting.sql("SHOW TABLES")) == 1
    # More space, and commits are taken again by the same process.
    subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
    deadline = time.monotonic() + 30
    while True:
        try:
            restarting.sql("INSERT INTO t VALUES (-1)")
            break
        except urllib.error.HTTPError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    stop(restarting.server)


def test_a_conflict_says_what_is_expected(tmp_path):
    restarting = Restarting(tmp_path / "data")
    server = restarting.start()
    with server.connect() as client:
        headers = [(b"x-zepto-writer", b"w"), (b"x-zepto-sequence", b"7"), (b"x-zepto-durability", b"wal")]
        descriptor = fl.FlightDescriptor.for_path("t")
        with pytest.raises(pa.ArrowException, match="begins with commit 1, not 7") as refused:
            writer, reader = client.do_put(descriptor, rows(0, 1).schema, fl.FlightCallOptions(headers=headers))
            writer.write_table(rows(0, 1))
            writer.done_writing()
            reader.read()
            writer.close()
        print(type(refused.value))
    url = f"{server.http}/insert/ndjson?table=t&writer=w&sequence=2"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, data=b'{"n": 1}'))
    assert refused.value.code == 412
    headers = {"X-Zepto-Writer": "w", "X-Zepto-Sequence": "1", "X-Zepto-Offset": "abc"}
    url = f"{server.http}/insert/ndjson?table=t&if_missing=create"
    for duplicate in [False, True]:
        with urllib.request.urlopen(urllib.request.Request(url, data=b'{"n": 1}', headers=headers)) as answer:
            answer = json.load(answer)
        assert (answer["duplicate"], answer["writer"]["offset"]) == (duplicate, "abc")
    with urllib.request.urlopen(f"{server.http}/tables/t/writers/w") as answer:
        assert json.load(answer)["sequence"] == 1
    stop(server)


def traced(directory: pathlib.Path, log: pathlib.Path, *inject: str) -> Server | None:
    """A server whose writes and syncs are written down, and of which one may fail; none where it does not start."""
    binary = os.environ["ZEPTO_TEST_SERVER"]
    command = ["strace", "-f", "-qq", "-o", log, "-e", "trace=pwritev2,fdatasync,fsync", *inject]
    flags = ["--flight-port", "0", "--http-port", "0", "--log-level", "off", "--data-dir", directory]
    process = subprocess.Popen([*command, binary, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    banner = ""
    for line in process.stdout:
        banner += line
        if "read_all" in line:
            flight, http = (re.search(rf"{scheme}://[\d.:]+", banner).group(0) for scheme in ("grpc", "http"))
            return Server(process, flight, http)
    process.wait()
    return None


def kill_traced(server: Server) -> None:
    children = pathlib.Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    server.process.wait()


CHANGES = [
    "CREATE TABLE t (n BIGINT)",
    *(f"INSERT INTO t VALUES ({number})" for number in range(1, 26)),
    "DELETE FROM t WHERE n = 2",
    "INSERT INTO t SELECT 26",
]


def states() -> list:
    """What the table has after each of the changes; nothing before the first."""
    found, rows = [None], []
    for number in range(26):
        rows = [*rows, number] if number else []
        found.append(rows)
    rest = [number for number in rows if number != 2]
    return [*found, rest, [*rest, 26]]


def change(server: Server, text: str):
    """Returns true, the status of a refusal, or nothing where no answer comes."""
    try:
        with urllib.request.urlopen(urllib.request.Request(server.http, data=text.encode()), timeout=20):
            return True
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def table(server: Server):
    try:
        request = urllib.request.Request(server.http, data=b"SELECT n FROM t")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return [n for (n,) in json.load(answer)["data"]]
    except urllib.error.HTTPError as error:
        assert error.code == 404
        return None


def test_nothing_is_acknowledged_before_the_disk_was_asked(tmp_path):
    if not shutil.which("strace"):
        without("strace")
    log = tmp_path / "calls"
    server = traced(tmp_path / "data", log)
    before = len(log.read_text().splitlines())
    for text in CHANGES:
        assert change(server, text) is True
        lines = log.read_text().splitlines()
        durable = [line for line in lines[before:] if "RWF_DSYNC" in line or "fdatasync" in line]
        assert durable, (text, lines[before:])
        before = len(lines)
    kill_traced(server)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_a_write_that_fails_is_never_acknowledged(tmp_path, error):
    if not shutil.which("strace"):
        without("strace")
    outcomes = set()
    # Calls are counted for each thread of its own.
    for call, at in [*(("pwritev2", at) for at in range(1, 10)), *(("fsync", at) for at in range(1, 10))]:
        directory = tmp_path / f"{call}{at}"
        inject = f"inject={call}:error={error}:when={at}"
        server = traced(directory, tmp_path / "calls", "-e", inject)
        acknowledged, unknown, refused = 0, False, False
        if server:
            for text in CHANGES:
                answer = change(server, text)
                if answer is not True:
                    # What follows may work, or be refused; the state that it comes to is another one then.
                    unknown, refused = answer in (503, None), answer == 429
                    break
                acknowledged += 1
            kill_traced(server)
        outcomes.add((server is not None, unknown, refused))
        again = start("--data-dir", str(directory))
        allowed = states()[acknowledged : acknowledged + 1 + unknown]
        assert table(again) in allowed, (at, acknowledged, unknown, table(again), allowed)
        stop(again)
    assert (True, True, False) in outcomes if error == "EIO" else (True, False, True) in outcomes, outcomes


def zepto(*arguments: str, fails: bool = False) -> str:
    binary = pathlib.Path(os.environ["ZEPTO_TEST_SERVER"]).with_name("zepto")
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr


@pytest.mark.parametrize("protocol", ["flight", "http"])
def test_a_backup_is_restored_with_the_same_answers(tmp_path, protocol):
    server = start("--data-dir", str(tmp_path / "data"), "--ticks", "5000")
    before = table_of(server, "SELECT * FROM trades")
    zepto("--url", getattr(server, protocol), "backup", tmp_path / "backup")
    # What comes later is not in it.
    change(server, "DELETE FROM trades WHERE symbol = 1")
    again = zepto("--url", server.flight, "backup", tmp_path / "backup", fails=True)
    assert "not empty" in again
    stop(server)
    assert "verif" not in zepto("verify", tmp_path / "backup")
    zepto("restore", tmp_path / "backup", tmp_path / "restored")
    assert "not empty" in zepto("restore", tmp_path / "backup", tmp_path / "restored", fails=True)
    for directory in ["restored", "backup"]:
        server = start("--data-dir", str(tmp_path / directory))
        assert table_of(server, "SELECT * FROM trades") == before
        assert change(server, "INSERT INTO trades (symbol, price) VALUES (1, 2.0)") is True
        stop(server)
    stores = {json.loads((tmp_path / name / "FORMAT").read_text())["store"] for name in ["data", "restored"]}
    assert len(stores) == 2
    assert "not a backup" in zepto("restore", tmp_path / "data", tmp_path / "third", fails=True)


def test_a_backup_that_finds_no_space_is_no_backup(tmp_path):
    with tmpfs_of(tmp_path / "small", 1) as small:
        server = start("--data-dir", str(tmp_path / "data"), "--ticks", "200000")
        assert "cannot be written" in zepto("--url", server.flight, "backup", small / "backup", fails=True)
        assert not (small / "backup" / "FORMAT").exists()
        stop(server)


def test_damage_is_named_and_a_journal_can_be_cut(tmp_path):
    data = tmp_path / "data"
    server = start("--data-dir", str(data), "--ticks", "5000")
    zepto("--url", server.flight, "backup", tmp_path / "backup")
    for number in range(20):
        change(server, f"INSERT INTO trades (symbol, price) VALUES ({number}, 1.0)")
    assert "in use" in zepto("verify", data, fails=True)
    stop(server)
    zepto("verify", data)
    shutil.copytree(data, tmp_path / "copy")
    part = next((data / "parts").iterdir())
    part.write_bytes(bytes([part.read_bytes()[0]]) + b"?" * 3000 + part.read_bytes()[3001:])
    assert part.name in zepto("verify", data, fails=True)
    # A record in the middle of the journal: what is behind it was acknowledged.
    data = tmp_path / "copy"
    wal = max((data / "journal").iterdir(), key=lambda path: path.read_bytes().count(b'"append"'))
    content = bytearray(wal.read_bytes())
    at = sorted(match.start() for match in re.finditer(b'"append"', content))[10]
    content[at] ^= 1
    wal.write_bytes(content)
    binary = os.environ["ZEPTO_TEST_SERVER"]
    refused = subprocess.run([binary, "--http-port", "0", "--flight-port", "0", "--data-dir", data], capture_output=True)
    assert refused.returncode == 1 and wal.name.encode() in refused.stderr
    assert "--truncate" in zepto("recover", data, fails=True)
    cut = zepto("recover", "--truncate", data)
    assert wal.name in cut and "lost" in cut
    server = start("--data-dir", str(data))
    count = table_of(server, "SELECT count(*) FROM trades")[0][0]
    assert 5000 < count < 5020
    stop(server)
    assert "nothing is damaged" in zepto("recover", "--truncate", data)


def table_of(server: Server, text: str):
    request = urllib.request.Request(server.http, data=text.encode())
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["data"]


def test_a_table_may_be_larger_than_memory(tmp_path):
    limit = 40_000_000
    server = start("--data-dir", str(tmp_path / "data"), "--memory-bytes-max", str(limit))
    client = fl.connect(server.flight)
    rows, batch_rows = 10_000_000, 100_000
    batch = lambda at: pa.record_batch(
        {"n": pa.array(range(at, at + batch_rows), pa.int64()), "x": pa.array([at * 0.5] * batch_rows, pa.float64())}
    )
    for start_row in range(0, rows, batch_rows * 10):
        first = batch(start_row)
        writer, _ = client.do_put(fl.FlightDescriptor.for_path("t"), first.schema)
        for at in range(start_row, start_row + batch_rows * 10, batch_rows):
            writer.write_batch(batch(at))
        writer.close()
    assert table_of(server, "SELECT count(*), sum(n), min(n), max(n) FROM t") == [
        [rows, rows * (rows - 1) // 2, 0, rows - 1]
    ]
    assert table_of(server, "SELECT n FROM t WHERE n = 7654321") == [[7654321]]
    assert table_of(server, "SELECT x, count(*) FROM t GROUP BY x ORDER BY x LIMIT 2") == [
        [0.0, batch_rows],
        [batch_rows * 0.5, batch_rows],
    ]
    read = client.do_get(fl.Ticket("SELECT n FROM t")).to_reader()
    at = 0
    for part in read:
        assert part.column(0)[0].as_py() == at
        at += part.num_rows
    assert at == rows
    used = table_of(server, "SELECT memory_bytes, disk_bytes FROM system.tables")
    assert used[0][0] < limit and used[0][1] >= rows * 16
    change(server, "DELETE FROM t WHERE n % 2 = 0")
    assert table_of(server, "SELECT count(*) FROM t") == [[rows // 2]]
    # The process itself has more than tables.
    assert server.peak_bytes() < 600_000_000
    stop(server)
    server = start("--data-dir", str(tmp_path / "data"), "--memory-bytes-max", str(limit))
    assert table_of(server, "SELECT count(*), sum(n) FROM t") == [[rows // 2, (rows // 2) ** 2]]
    stop(server)

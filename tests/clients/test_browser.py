"""A real browser shows a page of another origin, and the page tries what such pages can do to a server on this machine."""

import http.server
import json
import re
import shutil
import subprocess
import threading

import requests
from conftest import start, stop, without

# Every attack ends in a line of the page's text. A form needs no script to be sent; its answer goes to a frame.
PAGE = """<!doctype html><body><pre id=log></pre>
<iframe name=frame></iframe>
<form id=form method=post enctype=text/plain action="TARGET/" target=frame>
<input name="DROP TABLE trades --" value=""></form>
<form id=insert method=post enctype=text/plain action="TARGET/insert/ndjson?table=planted" target=frame>
<input name='{"a": 1, "b": "' value='"}'></form>
<script>
const log = (name, result) => document.getElementById("log").append(name + ": " + result + "\\n");
const attack = async (name, path, options) => {
  try {
    const answer = await fetch("TARGET" + path, options);
    log(name, answer.type === "opaque" ? "sent" : "read " + answer.status);
  } catch (error) { log(name, "blocked"); }
};
(async () => {
  const post = { method: "POST", body: "DROP TABLE trades", headers: { "content-type": "text/plain" } };
  await attack("post", "/", post);
  await attack("post without cors", "/", { ...post, mode: "no-cors" });
  await attack("get", "/?query=SELECT%20*%20FROM%20trades");
  await attack("get without cors", "/?query=SELECT%20*%20FROM%20trades", { mode: "no-cors" });
  await attack("insert", "/insert/csv?table=planted", { ...post, body: "a\\n1\\n", mode: "no-cors" });
  await attack("preflight", "/", { ...post, headers: { "x-zepto-access": "change" } });
  navigator.sendBeacon("TARGET/", "DROP TABLE trades");
  document.getElementById("form").submit();
  await new Promise(done => setTimeout(done, 300));
  document.getElementById("insert").submit();
  await new Promise(done => setTimeout(done, 300));
  log("end", "reached");
})();
</script>"""


def serve(page: str) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = page.encode()
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    return listener


def shown(page: str, folder) -> dict[str, str]:
    """The page's log, as Chromium's document has it once nothing is left to do."""
    chromium = shutil.which("chromium") or without("chromium")
    listener = serve(page)
    try:
        command = [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            f"--user-data-dir={folder}",
            *("--virtual-time-budget=15000", "--dump-dom"),
            f"http://127.0.0.1:{listener.server_port}/",
        ]
        document = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    finally:
        listener.shutdown()
    log = re.search(r"<pre id=\"log\">(.*?)</pre>", document, re.S).group(1)
    return dict(line.split(": ", 1) for line in log.strip().splitlines())


def tables(address: str) -> list[str]:
    return [table["name"] for table in requests.get(f"{address}/tables").json()["tables"]]


def test_a_page_of_another_origin_reads_and_changes_nothing(server, tmp_path):
    log = shown(PAGE.replace("TARGET", server.http), tmp_path)
    assert log["end"] == "reached"
    # What is sent without asking may go out; what matters is that nothing can be read, and nothing came of it.
    assert [name for name, result in log.items() if result.startswith("read")] == [], log
    assert tables(server.http) == ["trades"]
    rows = requests.post(server.http, data="SELECT count(*) AS n FROM trades").json()["data"]
    assert rows == [[1000]]


def test_a_name_that_points_here_is_not_this_server(server):
    # After a name was bound to this machine's address, a page of that name is of the same origin.
    answer = requests.get(f"{server.http}/?query=SELECT 1", headers={"host": "evil.example"})
    assert answer.status_code == 421
    assert json.loads(answer.text)["error"]


def test_a_page_that_is_allowed_reads(tmp_path):
    listener = serve("")
    origin = f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()
    server = start("--ticks", "10", "--http-allow-origins", origin)
    try:
        allowed = requests.get(f"{server.http}/?query=SELECT 1", headers={"origin": origin})
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == origin
        assert requests.get(f"{server.http}/ping", headers={"origin": origin + "1"}).status_code == 403
    finally:
        stop(server)

"""Whatever the message size, the compression and the number of endpoints, pyarrow reads back what it wrote."""

import random

import pyarrow as pa
import pyarrow.flight as fl
import pytest

HEADERS = [
    {},
    {"x-zepto-max-message-bytes": "4096"},
    {"x-zepto-ipc-compression": "lz4"},
    {"x-zepto-ipc-compression": "zstd", "x-zepto-max-message-bytes": "65536"},
]


def options(headers):
    return fl.FlightCallOptions(headers=[(name.encode(), value.encode()) for name, value in headers.items()])


def values(kind, chance):
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return lambda: [values(kind.value_type, chance)() for _ in range(chance.randrange(4))]
    if pa.types.is_struct(kind):
        return lambda: {field.name: values(field.type, chance)() for field in kind}
    if pa.types.is_boolean(kind):
        return lambda: chance.random() < 0.5
    if pa.types.is_floating(kind):
        return lambda: chance.choice([0.5, -0.0, float("inf"), chance.uniform(-1e6, 1e6)])
    if pa.types.is_integer(kind) or pa.types.is_temporal(kind):
        return lambda: chance.randrange(100)
    text = lambda: "".join(chance.choice("abcü") for _ in range(chance.randrange(30)))
    return (lambda: text().encode()) if "binary" in str(kind) else text


KINDS = [
    pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.string_view(),
    pa.binary(), pa.binary_view(), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.date32(), pa.duration("ms"),
    pa.list_(pa.int32()), pa.large_list(pa.string()), pa.struct({"a": pa.int64(), "b": pa.list_(pa.bool_())}),
]


def column(kind, rows, chance):
    make = values(kind, chance)
    items = [None if chance.random() < 0.2 else make() for _ in range(rows)]
    return pa.array(items, kind)


def table(seed):
    chance = random.Random(seed)
    rows = chance.choice([0, 1, 7, 1000, 3000])
    columns = {f"c{at}": column(chance.choice(KINDS), rows, chance) for at in range(chance.randrange(1, 7))}
    columns["d"] = column(pa.string(), rows, chance).dictionary_encode()
    whole = pa.table(columns)
    return whole.slice(rows // 7, rows - rows // 3)


@pytest.mark.parametrize("seed", range(12))
def test_random_tables_come_back_equal(client, seed):
    sent = table(seed)
    name = f"random_{seed}"
    writer, _ = client.do_put(fl.FlightDescriptor.for_path(name), sent.schema)
    writer.write_table(sent, max_chunksize=500)
    writer.close()
    for headers in HEADERS:
        back = client.do_get(fl.Ticket(f"SELECT * FROM {name}"), options(headers)).read_all()
        assert back.schema.equals(sent.schema), headers
        # A dictionary may be cut to what its rows use: compare what it says, not its codes.
        at = sent.schema.get_field_index("d")
        plain = [part.set_column(at, "d", part["d"].cast(pa.string())) for part in (back, sent)]
        assert plain[0].combine_chunks().equals(plain[1].combine_chunks()), headers


def test_endpoints_are_read_in_parallel_and_in_order(client):
    descriptor = fl.FlightDescriptor.for_command("SELECT * FROM trades")
    whole = client.do_get(client.get_flight_info(descriptor).endpoints[0].ticket).read_all()
    info = client.get_flight_info(descriptor, options({"x-zepto-endpoints": "3"}))
    assert len(info.endpoints) == 3 and info.ordered
    parts = [client.do_get(endpoint.ticket).read_all() for endpoint in info.endpoints]
    assert all(part.num_rows > 0 for part in parts)
    assert sum(part.num_rows for part in parts) == info.total_records
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())


def test_unknown_choices_say_what_is_allowed(client):
    for headers in ({"x-zepto-ipc-compression": "gzip"}, {"x-zepto-max-message-bytes": "0"}):
        with pytest.raises(pa.ArrowInvalid, match="expected"):
            client.do_get(fl.Ticket("SELECT 1"), options(headers)).read_all()

//! Foreign bytes into everything that parses them: any answer will do, as long as there is one.
//!
//! Each target runs a fixed number of inputs from a fixed seed here; `cargo bolero test` explores further from the same
//! functions (CONTRIBUTING.md).

use arrow_flight::FlightDescriptor;
use bolero::check;
use bytes::Bytes;
use std::sync::OnceLock;
use zepto_flight::adapters::flight::{Command, put_target};
use zepto_flight::adapters::ipc::{DecodeLimits, Decoder, Deframer, END_OF_STREAM, Encoder, Encoding};
use zepto_flight::ports::Limits;

fn limits() -> DecodeLimits {
    DecodeLimits::new(1 << 20, 1 << 24)
}

/// Header and body of each message of a stream with strings, nulls and a dictionary: what the fuzzer bends.
fn sample() -> &'static [(Bytes, Bytes)] {
    static SAMPLE: OnceLock<Vec<(Bytes, Bytes)>> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        use arrow::array::*;
        let symbols: DictionaryArray<arrow::datatypes::Int8Type> =
            vec![Some("a"), None, Some("b")].into_iter().collect();
        let lists = ListArray::from_iter_primitive::<arrow::datatypes::Int64Type, _, _>([
            Some(vec![Some(1)]),
            None,
            Some(vec![]),
        ]);
        let views = StringViewArray::from(vec![Some("a string that is longer than twelve"), None, Some("")]);
        let batch = RecordBatch::try_from_iter([
            ("d", std::sync::Arc::new(symbols) as ArrayRef),
            ("l", std::sync::Arc::new(lists)),
            ("v", std::sync::Arc::new(views)),
            ("s", std::sync::Arc::new(StringArray::from(vec!["x", "y", "z"]))),
        ])
        .unwrap();
        let (mut encoder, schema) = Encoder::new(&batch.schema(), Encoding::plain(1 << 20));
        let messages = [schema].into_iter().chain(encoder.encode(&batch).unwrap());
        messages.map(|message| (message.header(), message.body().concat().into())).collect()
    })
}

/// `bytes` with a few of them changed, as `edits` say.
fn bend(bytes: &Bytes, edits: &[(u16, u8)]) -> Bytes {
    let mut bent = bytes.to_vec();
    for (at, value) in edits {
        if let Some(length) = std::num::NonZero::new(bent.len()) {
            bent[usize::from(*at) % length] ^= value;
        }
    }
    bent.into()
}

#[test]
fn tickets_and_commands() {
    let handle = b"\xffzepto\x01".as_slice();
    check!().with_type::<Vec<u8>>().with_iterations(20_000).for_each(|bytes| {
        let _ = Command::decode(bytes);
        let _ = Command::decode(&[handle, bytes].concat());
        let mut any = arrow_flight::sql::Any { type_url: String::new(), value: bytes.clone().into() };
        for message in ["CommandStatementUpdate", "CommandGetTables", "CommandStatementIngest", "TicketStatementQuery"]
        {
            any.type_url = format!("type.googleapis.com/arrow.flight.protocol.sql.{message}");
            let bytes = prost::Message::encode_to_vec(&any);
            let _ = Command::decode(&bytes);
            let _ = put_target(&FlightDescriptor::new_cmd(bytes));
        }
    });
}

#[test]
fn descriptors() {
    check!().with_type::<(i32, Vec<u8>, Vec<String>)>().with_iterations(20_000).for_each(|(kind, cmd, path)| {
        let descriptor = FlightDescriptor { r#type: *kind % 4, cmd: cmd.clone().into(), path: path.clone() };
        let _ = put_target(&descriptor);
    });
}

#[test]
fn messages_of_a_put() {
    let edits = bolero::generator::produce::<Vec<(usize, bool, Vec<(u16, u8)>)>>();
    check!().with_generator(edits).with_iterations(20_000).for_each(|edits| {
        let mut messages = sample().to_vec();
        for (at, header, edits) in edits {
            let count = messages.len();
            let (head, body) = &mut messages[at % count];
            let part = if *header { head } else { body };
            *part = bend(part, &edits[..edits.len().min(4)]);
        }
        let mut decoder = Decoder::new(limits());
        for (header, body) in messages {
            let _ = decoder.decode(&header, body.into());
        }
    });
}

#[test]
fn bodies_of_an_insert() {
    let framed = |header: &Bytes| [&[0xff; 4], &(header.len() as u32).to_le_bytes()[..], header].concat();
    let messages = sample().iter().flat_map(|(header, body)| [framed(header), body.to_vec()]);
    let stream: Bytes = messages.chain([END_OF_STREAM.to_vec()]).flatten().collect();
    check!().with_type::<(Vec<(u16, u8)>, Vec<u8>, u16)>().with_iterations(20_000).for_each(|(edits, raw, cut)| {
        let bent = bend(&stream, &edits[..edits.len().min(6)]);
        for bytes in [bent, raw.clone().into()] {
            let mut deframer = Deframer::new(limits());
            let middle = usize::from(*cut) % (bytes.len() + 1);
            for part in [bytes.slice(..middle), bytes.slice(middle..)] {
                deframer.push(part);
                while let Ok(Some(_)) = deframer.next_batch() {}
            }
            let _ = deframer.finish();
        }
    });
    assert_eq!(DecodeLimits::from(&Limits::default()).message_bytes_max, Limits::DEFAULT.message_bytes_max);
}

#[test]
fn compressed_bodies_cannot_claim_what_they_like() {
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        let batch = crate::harness::numbers(0, 100_000);
        let options = IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        let stream = writer.into_inner().unwrap();
        let read = |bytes: &[u8], inflated_bytes_max: u64| {
            let mut deframer = Deframer::new(DecodeLimits::new(1 << 30, inflated_bytes_max));
            deframer.push(Bytes::copy_from_slice(bytes));
            deframer.next_batch()
        };
        assert_eq!(read(&stream, 1 << 30).unwrap().unwrap(), batch, "{codec:?}");
        let error = read(&stream, 500_000).unwrap_err();
        assert!(error.message().contains("inflated_bytes_max"), "{codec:?}: {error}");
        // The first compressed buffer now claims to be as long as memory is wide.
        let claim = 800_000_i64.to_le_bytes();
        let at = stream.windows(8).position(|window| window == claim).expect("a buffer of 800,000 bytes");
        let mut lying = stream.clone();
        lying[at..at + 8].copy_from_slice(&(i64::MAX - 7).to_le_bytes());
        assert!(read(&lying, 1 << 30).is_err(), "{codec:?}");
    }
}

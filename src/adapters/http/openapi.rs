//! `/openapi.json`: every route as OpenAPI has it, made from the tables that the routes use themselves – formats, kinds
//! of bodies, statuses – so that the two cannot differ.

use crate::adapters::formats::format::Format;
use crate::adapters::formats::read::InputFormat;
use crate::adapters::http::wire::status_from_kind;
use crate::adapters::serving::HEADER_PREFIX;
use crate::adapters::serving::numbered_put::{DURABILITY, EPOCH, OFFSET, SEQUENCE, WRITER};
use crate::ports::{Durability, ErrorKind, IfExists, IfMissing};
use serde_json::{Map, Value, json};

/// Statuses of HTTP's own, which no kind of error has.
const OWN_STATUSES: [(u16, &str); 9] = [
    (405, "the method is not allowed; Allow lists those that are"),
    (406, "no accepted media type is supported"),
    (408, "the request did not arrive in time"),
    (411, "the body has no length"),
    (413, "the body is too large"),
    (415, "the body has a media type or encoding that this route does not take"),
    (417, "an expectation that cannot be met"),
    (431, "the headers are too large"),
    (505, "the format needs HTTP/1.1"),
];

/// Builds the document.
pub fn document(version: &str) -> Value {
    let insert =
        |name: &str, format: InputFormat| (format!("/insert/{name}"), json!({"post": inserting(name, format)}));
    let mut paths: Map<String, Value> =
        InputFormat::ALL.into_iter().map(|(name, format)| insert(name, format)).collect();
    paths.insert("/".into(), json!({"post": query_by_post(), "get": query_by_get()}));
    paths.insert("/exchange".into(), json!({"post": exchange()}));
    paths.insert("/describe".into(), json!({"post": describe()}));
    paths.insert(
        "/snapshot".into(),
        json!({"post": operation("pin the present state of all tables", "Snapshot", vec![], None)}),
    );
    for (path, summary, schema) in [
        ("/tables", "the tables", "Tables"),
        ("/stats", "counters since the start", "Object"),
        ("/version", "what this server is", "Object"),
        ("/health", "whether the process is well, and what it is", "Object"),
        ("/ready", "whether requests are taken, and the backend answers", "Object"),
        ("/openapi.json", "this document", "Object"),
    ] {
        paths.insert(path.into(), json!({"get": operation(summary, schema, vec![], None)}));
    }
    let name = parameter("name", "path", "the table's name", &json!({"type": "string"}));
    let writer = parameter("writer", "path", "the writer's name", &json!({"type": "string"}));
    let get = operation("how far a writer has come", "Writer", vec![name.clone(), writer], None);
    paths.insert("/tables/{name}/writers/{writer}".into(), json!({"get": get}));
    paths.insert("/tables/{name}".into(), json!({"get": operation("one table", "Table", vec![name], None)}));
    let mut ping = operation("answers Ok", "Object", vec![], None);
    ping["responses"]["200"]["content"] = json!({"text/plain": {"schema": {"type": "string"}}});
    paths.insert("/ping".into(), json!({"get": ping}));
    json!({
        "openapi": "3.1.0",
        "info": {"title": "zepto-flight", "version": version, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": schemas()},
    })
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn parameter(name: &str, place: &str, description: &str, schema: &Value) -> Value {
    json!({"name": name, "in": place, "description": description, "schema": schema, "required": place == "path"})
}

/// Makes a parameter required.
fn required(mut parameter: Value) -> Value {
    parameter["required"] = json!(true);
    parameter
}

/// Builds an operation that answers one JSON document.
fn operation(summary: &str, schema: &str, parameters: Vec<Value>, body: Option<Value>) -> Value {
    let mut responses = errors();
    responses.insert(
        "200".into(),
        json!({"description": summary, "content": {"application/json": {"schema": reference(schema)}}}),
    );
    let mut operation = json!({"summary": summary, "parameters": parameters, "responses": responses});
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

/// Lists every status that is an error.
fn errors() -> Map<String, Value> {
    let body = json!({"application/json": {"schema": reference("Error")}});
    let kinds = ErrorKind::ALL.into_iter().map(|kind| (status_from_kind(kind).as_u16(), kind.as_str()));
    let all = kinds.chain(OWN_STATUSES);
    all.map(|(status, text)| (status.to_string(), json!({"description": text, "content": body}))).collect()
}

fn body(media_type: &str, schema: &Value, description: &str) -> Value {
    json!({"required": true, "description": description, "content": {media_type: {"schema": schema}}})
}

fn statement() -> Value {
    body("text/plain", &json!({"type": "string"}), "one statement of SQL")
}

/// Builds an operation that answers rows.
fn result(summary: &str, mut parameters: Vec<Value>, body: Option<Value>) -> Value {
    let names: Vec<_> = Format::names().collect();
    parameters.push(parameter(
        "format",
        "query",
        "the format of the result",
        &json!({"type": "string", "enum": names}),
    ));
    parameters.push(parameter("nan", "query", "what NaN becomes in JSON", &json!({"enum": ["null", "string"]})));
    let zone = "^(keep|UTC|[+-](0[0-9]|1[0-3]):[0-5][0-9])$";
    for (option, what, takes) in [
        ("string-encoding", "whether dictionaries and views stay", json!({"enum": ["keep", "plain"]})),
        ("timestamp-unit", "the unit of timestamps", json!({"enum": ["keep", "s", "ms", "us", "ns"]})),
        ("time-zone", "the zone of those that have one; names work too", json!({"type": "string", "pattern": zone})),
        ("batch-rows", "most rows of one batch", json!({"type": "integer", "minimum": 1})),
    ] {
        parameters.push(parameter(&format!("{HEADER_PREFIX}{option}"), "header", what, &takes));
    }
    let mut operation = operation(summary, "Result", parameters, body);
    let content = &mut operation["responses"]["200"]["content"];
    for format in Format::ALL.into_iter().filter(|format| format.media_type() != "application/json") {
        content[format.media_type()] = json!({});
    }
    // Its shape depends on the format.
    content["application/json"] = json!({"schema": reference("Object")});
    operation
}

fn query_by_post() -> Value {
    result("run a statement", vec![], Some(statement()))
}

fn query_by_get() -> Value {
    let sql =
        parameter("query", "query", "a read; without it the answer describes this server", &json!({"type": "string"}));
    result("run a read", vec![sql], None)
}

fn exchange() -> Value {
    let sql = parameter("query", "query", "a read that sees the body as the table `input`", &json!({"type": "string"}));
    let stream = body(InputFormat::Arrow.media_type(), &binary(), "an Arrow IPC stream");
    result("run a read over the caller's own rows", vec![required(sql)], Some(stream))
}

fn describe() -> Value {
    operation("say what a statement would do, without running it", "Description", vec![], Some(statement()))
}

fn binary() -> Value {
    json!({"type": "string", "format": "binary"})
}

fn inserting(name: &str, format: InputFormat) -> Value {
    let text = json!({"type": "string"});
    let missing = [IfMissing::AsConfigured, IfMissing::Create, IfMissing::Fail].map(IfMissing::as_str);
    let exists = [IfExists::Append, IfExists::Fail, IfExists::Replace].map(IfExists::as_str);
    let (missing, exists) = (json!({"enum": missing}), json!({"enum": exists}));
    let levels = [Durability::Memory, Durability::Wal, Durability::Fsync].map(Durability::as_str);
    let number = json!({"type": "integer", "minimum": 0});
    let parameters = vec![
        parameter(WRITER, "query", "who sends numbered commits", &text),
        parameter(SEQUENCE, "query", "the number of this one, from 1", &number),
        parameter(EPOCH, "query", "which process writes under that name", &number),
        parameter(OFFSET, "query", "what the writer wants to be told again", &text),
        parameter(DURABILITY, "query", "where the rows are before the answer", &json!({"enum": levels})),
        required(parameter("table", "query", "the table to append to", &text)),
        parameter("if_missing", "query", "what to do where it is missing", &missing),
        parameter("if_exists", "query", "what to do where it exists", &exists),
    ];
    let body = body(format.media_type(), &binary(), &format!("rows as {name}: all of them or nothing"));
    operation(&format!("append rows that come as {name}"), "Inserted", parameters, Some(body))
}

fn schemas() -> Value {
    let object = |properties: Value| {
        let required: Vec<_> = properties.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
        json!({"type": "object", "properties": properties, "required": required})
    };
    let text = json!({"type": "string"});
    let count = json!({"type": "integer", "minimum": 0});
    let columns =
        json!({"type": "array", "items": object(json!({"name": text, "type": text, "nullable": {"type": "boolean"}}))});
    json!({
        "Object": {"type": "object"},
        "Error": object(json!({"error": object(json!({"kind": text, "message": text, "request_id": text}))})),
        "Result": object(json!({
            "columns": {"type": "array", "items": text},
            "data": {"type": "array", "items": {"type": "array"}},
            "rows": count,
            "execution_time_us": {"type": "number"},
        })),
        "Description": object(json!({"kind": text, "schema": text, "rows": {"type": ["integer", "null"]}, "params": text})),
        "Snapshot": object(json!({"snapshot": text})),
        "Table": object(json!({"name": text, "rows": count, "bytes": count, "time_column": json!({"type": ["string", "null"]}), "columns": columns, "schema": text})),
        "Tables": object(json!({"tables": {"type": "array", "items": reference("Table")}})),
        "Inserted": object(json!({"inserted": count, "failed": count})),
        "Writer": object(json!({"writer": text, "epoch": count, "sequence": count, "offset": {"type": ["string", "null"]}, "rows": count, "lsn": text, "time_us": {"type": "integer"}})),
    })
}

#[cfg(test)]
mod tests {
    use crate::adapters::http::openapi::document;

    #[test]
    fn every_reference_is_to_something() {
        let document = document("1");
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        assert!(document["paths"]["/insert/parquet"]["post"]["responses"]["422"].is_object());
    }
}

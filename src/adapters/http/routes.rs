//! Which path goes where. Methods are the handlers' business, so that a wrong one is told the right ones.

use crate::adapters::http::guard::Refused;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::incoming::{Incoming, Meta, timely};
use http::{HeaderMap, Method};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Reply};

/// Every route.
pub fn routes(handlers: Arc<Handlers>) -> BoxedFilter<(Response,)> {
    let refused = {
        let handlers = handlers.clone();
        warp::ext::get::<Refused>().and(incoming(handlers.clone())).then(move |refused, incoming| {
            let handlers = handlers.clone();
            async move { handlers.refused(refused, incoming).await }
        })
    };
    macro_rules! route {
        ($path:expr, $handler:ident) => {{
            let handlers = handlers.clone();
            $path.and(incoming(handlers.clone())).then(move |incoming| {
                let handlers = handlers.clone();
                async move { handlers.$handler(incoming).await }
            })
        }};
    }
    let root = route!(warp::path::end(), root);
    let describe = route!(warp::path!("describe"), describe);
    let snapshot = route!(warp::path!("snapshot"), snapshot);
    let insert = {
        let handlers = handlers.clone();
        warp::path!("insert" / String).and(incoming(handlers.clone())).then(move |format: String, incoming| {
            let handlers = handlers.clone();
            async move { handlers.insert(&format, incoming).await }
        })
    };
    let exchange = route!(warp::path!("exchange"), exchange);
    let tables = route!(warp::path!("tables"), tables);
    let stats = route!(warp::path!("stats"), stats);
    let version = route!(warp::path!("version"), version);
    let openapi = route!(warp::path!("openapi.json"), openapi);
    let ping = route!(warp::path!("ping"), ping);
    let health = route!(warp::path!("health"), health);
    let ready = route!(warp::path!("ready"), ready);
    let one_table = {
        let handlers = handlers.clone();
        warp::path!("tables" / String).and(incoming(handlers.clone())).then(move |name: String, incoming| {
            let handlers = handlers.clone();
            async move { handlers.table(&name, incoming).await }
        })
    };
    let unknown = route!(warp::any(), unknown);
    macro_rules! first_of {
        ($first:ident $($other:ident)+) => { $first$(.or($other).unify())+ };
    }
    first_of!(refused root describe snapshot insert exchange tables one_table stats version openapi ping health ready unknown)
        .map(Reply::into_response)
        .boxed()
}

fn incoming(handlers: Arc<Handlers>) -> BoxedFilter<(Incoming,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<Meta>())
        .and(warp::body::stream())
        .and_then(move |method: Method, path: FullPath, query: String, headers: HeaderMap, meta: Meta, body| {
            let limits = handlers.options.limits.clone();
            async move {
                let query: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
                let path = path.as_str().to_owned();
                let body = timely(body, &limits);
                Ok::<_, Infallible>(Incoming { method, path, query, headers, meta, body })
            }
        })
        .map(|incoming| incoming)
        .boxed()
}

//! Paths to handlers. Methods are checked by the handlers, so that a wrong one is answered with the right ones.

use crate::adapters::http::guard::Refused;
use crate::adapters::http::handlers::Handlers;
use crate::adapters::http::request::{HttpRequest, RequestBody, RequestMeta};
use http::{HeaderMap, Method};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use warp::filters::BoxedFilter;
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Reply};

/// Builds the filter of every route.
pub fn routes(handlers: Arc<Handlers>) -> BoxedFilter<(Response,)> {
    // First of all routes: a refused request must reach no other.
    let refused = {
        let handlers = handlers.clone();
        warp::ext::get::<Refused>().and(request(handlers.clone())).then(move |refused, request| {
            let handlers = handlers.clone();
            async move { handlers.refused(refused, request).await }
        })
    };
    macro_rules! route {
        ($path:expr, $handler:ident) => {{
            let handlers = handlers.clone();
            $path.and(request(handlers.clone())).then(move |request| {
                let handlers = handlers.clone();
                async move { handlers.$handler(request).await }
            })
        }};
    }
    let root = route!(warp::path::end(), root);
    let describe = route!(warp::path!("describe"), describe);
    let snapshot = route!(warp::path!("snapshot"), snapshot);
    let insert = {
        let handlers = handlers.clone();
        warp::path!("insert" / String).and(request(handlers.clone())).then(move |format: String, request| {
            let handlers = handlers.clone();
            async move { handlers.insert(&format, request).await }
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
        warp::path!("tables" / String).and(request(handlers.clone())).then(move |name: String, request| {
            let handlers = handlers.clone();
            async move { handlers.table(&name, request).await }
        })
    };
    let writer = {
        let handlers = handlers.clone();
        warp::path!("tables" / String / "writers" / String).and(request(handlers.clone())).then(
            move |table: String, writer: String, request| {
                let handlers = handlers.clone();
                async move { handlers.writer(&table, &writer, request).await }
            },
        )
    };
    let unknown = route!(warp::any(), unknown);
    macro_rules! first_of {
        // Boxed one by one: the type of the whole chain takes the compiler a minute to prove `Send`.
        ($first:ident $($other:ident)+) => { $first.boxed()$(.or($other.boxed()).unify().boxed())+ };
    }
    first_of!(refused root describe snapshot insert exchange tables one_table writer stats version openapi ping health ready unknown)
        .map(Reply::into_response)
        .boxed()
}

fn request(handlers: Arc<Handlers>) -> BoxedFilter<(HttpRequest,)> {
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method()
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::ext::get::<RequestMeta>())
        .and(warp::body::stream())
        .and_then(move |method: Method, path: FullPath, query: String, headers: HeaderMap, meta: RequestMeta, body| {
            let limits = handlers.options().limits.clone();
            async move {
                let query: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
                let path = path.as_str().to_owned();
                let body = RequestBody::with_read_timeout(body, &limits);
                Ok::<_, Infallible>(HttpRequest { method, path, query, headers, meta, body })
            }
        })
        .map(|request| request)
        .boxed()
}

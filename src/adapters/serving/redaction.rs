//! Takes the literals out of a statement, so that a log shows its shape and nobody's password.
//!
//! It reads text that need not be SQL, so it goes by characters: quoted strings, dollar-quoted strings, numbers and comments.
//! A quote that is never closed hides the rest. Names stay, in double quotes too.

/// What stands in place of a literal.
const PLACEHOLDER: char = '?';

/// Replaces every string and number in `sql` by `?` and drops its comments.
pub fn without_literals(sql: &str) -> String {
    let mut shown = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(sign) = rest.chars().next() {
        let in_word = shown.ends_with(|before: char| before.is_alphanumeric() || before == '_');
        rest = match sign {
            '\'' => {
                let escapes = shown.ends_with(['e', 'E']);
                shown.push(PLACEHOLDER);
                after_string(&rest[1..], escapes)
            }
            '"' => {
                let end = rest.len() - after_quoted(&rest[1..], '"').len();
                // One that is never closed need not be a name.
                match end < rest.len() || rest.len() > 1 && rest.ends_with('"') {
                    true => shown.push_str(&rest[..end]),
                    false => shown.push(PLACEHOLDER),
                }
                &rest[end..]
            }
            '$' if dollar_tag(rest).is_some() => {
                shown.push(PLACEHOLDER);
                let tag = dollar_tag(rest).unwrap_or_default();
                rest[tag.len()..].split_once(tag).map_or("", |(_, after)| after)
            }
            '0'..='9' if !in_word => {
                shown.push(PLACEHOLDER);
                rest.trim_start_matches(|sign: char| sign.is_alphanumeric() || sign == '.' || sign == '_')
            }
            '-' if rest.starts_with("--") => rest.split_once('\n').map_or("", |(_, after)| after),
            '/' if rest.starts_with("/*") => after_comment(rest),
            _ => {
                shown.push(sign);
                &rest[sign.len_utf8()..]
            }
        };
    }
    shown
}

/// Skips to behind the end of a string. Where it is `E'…'`, a backslash escapes a quote; where it is not, one before a quote
/// may be meant as either, and all that follows is hidden.
fn after_string(text: &str, escapes: bool) -> &str {
    let rest = after_quoted(text, '\'');
    let string = &text[..text.len() - rest.len()];
    if !string.contains("\\'") {
        return rest;
    }
    if !escapes {
        return "";
    }
    let mut signs = text.char_indices();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '\\' => drop(signs.next()),
            '\'' if !text[at + 1..].starts_with('\'') => return &text[at + 1..],
            '\'' => drop(signs.next()),
            _ => {}
        }
    }
    ""
}

/// Skips to behind the end of a comment, in which others may be nested.
fn after_comment(text: &str) -> &str {
    let (mut rest, mut depth) = (&text[2..], 1);
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else { return "" };
        rest = &rest[at..];
        let step = match rest.get(..2) {
            Some("/*") => 1,
            Some("*/") => -1,
            _ => 0,
        };
        depth += step;
        rest = &rest[if step == 0 { 1 } else { 2 }..];
    }
    rest
}

/// Skips to behind the end of a quoted text, in which a doubled quote is not the end.
fn after_quoted(text: &str, quote: char) -> &str {
    let mut signs = text.char_indices().peekable();
    while let Some((at, sign)) = signs.next() {
        if sign == quote {
            match signs.peek() {
                Some((_, next)) if *next == quote => drop(signs.next()),
                _ => return &text[at + 1..],
            }
        }
    }
    ""
}

/// Returns the opening `$tag$` of a dollar-quoted string.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[1..end - 1];
    let is_name = tag.chars().all(|sign| sign.is_alphanumeric() || sign == '_') && !tag.starts_with(char::is_numeric);
    is_name.then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use crate::adapters::serving::redaction::without_literals;

    #[test]
    fn literals_go_and_names_stay() {
        for (sql, shown) in [
            ("SELECT a1, 2 FROM t1 WHERE s = 'it''s' AND x > 1.5e3", "SELECT a1, ? FROM t1 WHERE s = ? AND x > ?"),
            ("CREATE USER bob WITH PASSWORD 'hunter2'", "CREATE USER bob WITH PASSWORD ?"),
            (
                "INSERT INTO \"T '1'\" VALUES (E'a\\'b', $$secret$$, $x$a$b$x$, $1)",
                "INSERT INTO \"T '1'\" VALUES (E?, ?, ?, $?)",
            ),
            ("SELECT 1 -- password\n, /* secret */ 'never closed", "SELECT ? ,  ?"),
            ("ä'ö'ü", "ä?ü"),
            ("a = \"hunter2", "a = ?"),
            ("p = 'C:\\' AND s = 'hunter2' AND t", "p = ?"),
            ("p = E'\\'hunter2\\\\' AND t", "p = E? AND t"),
            ("1 /* a /* b */ hunter2 */ + x", "?  + x"),
        ] {
            assert_eq!(without_literals(sql), shown);
        }
    }

    #[test]
    fn any_text_is_read_to_its_end() {
        bolero::check!().with_type::<String>().with_iterations(2_000).for_each(|text| {
            let shown = without_literals(text);
            assert!(shown.chars().filter(|sign| *sign == '\'').count() <= text.matches('"').count() * text.len());
        });
    }
}

//! The shell: statements typed over several lines, with history, completion and highlighting.

use crate::lexer::{KEYWORDS, TokenKind, is_complete, is_keyword, split_statements, tokenize};
use crate::output::{Layout, Output};
use crate::remote::Remote;
use arrow::array::AsArray;
use clap::ValueEnum;
use nu_ansi_term::{Color, Style};
use reedline::{
    ColumnarMenu, Completer, CompletionResult, Emacs, FileBackedHistory, Highlighter, KeyCode, KeyModifiers,
    MenuBuilder, Prompt, PromptEditMode, PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, Span,
    StyledText, Suggestion, ValidationResult, Validator, default_emacs_keybindings,
};
use std::borrow::Cow;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use zepto_flight::ports::{Caller, Error, Query, Result};

/// Most statements of the history.
const HISTORY_MAX: usize = 10_000;

const HELP: &str = "\
SQL ends with a semicolon. Ctrl-C stops a query or drops what was typed, Ctrl-D leaves.
  \\d           list the tables
  \\d TABLE     list the columns of a table
  \\timing      turn the display of times on or off
  \\format F    table, csv, json, ndjson, markdown
  \\pager       turn the pager for long results on or off
  \\?           show this help
  \\q           leave";

struct Shell<'a> {
    remote: &'a Remote,
    layout: Layout,
    timing: bool,
    pager: bool,
    names: Names,
}

/// Names of tables and columns, as of the last refresh.
type Names = Arc<Mutex<Vec<String>>>;

/// Runs the shell until its user leaves.
///
/// # Errors
///
/// `Unavailable` where the server cannot be reached at the start, or the terminal cannot be read.
pub async fn run(remote: &Remote, layout: Option<Layout>) -> Result<()> {
    let names = Names::default();
    let layout = layout.unwrap_or(Layout::Table);
    let mut shell = Shell { remote, layout, timing: true, pager: false, names: names.clone() };
    shell.refresh_names().await?;
    print_line("zepto: \\? for help, \\q to leave");
    let mut editor = editor(names);
    loop {
        let (returned, signal) = tokio::task::spawn_blocking(move || {
            let signal = editor.read_line(&ShellPrompt);
            (editor, signal)
        })
        .await
        .map_err(|error| Error::internal(format!("the editor stopped: {error}")))?;
        editor = returned;
        match signal {
            Ok(Signal::Success(text)) => {
                if !shell.enter(&text).await {
                    return Ok(());
                }
            }
            Ok(Signal::CtrlD) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Error::unavailable(format!("the terminal cannot be read: {error}"))),
        }
    }
}

impl Shell<'_> {
    /// Executes what was typed, and returns whether to go on.
    async fn enter(&mut self, text: &str) -> bool {
        let done = match text.trim().strip_prefix('\\') {
            Some("q") => return false,
            Some(command) => self.command(command).await,
            None => self.statements(text).await,
        };
        if let Err(error) = done {
            print_line(&Color::Red.paint(format!("error: {}", error.message())).to_string());
        }
        true
    }

    async fn command(&mut self, command: &str) -> Result<()> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, argument.trim()) {
            ("?" | "h" | "help", _) => print_line(HELP),
            ("d", "") => return self.show("SHOW TABLES").await,
            ("d", table) => return self.show(&format!("DESCRIBE {}", table.trim_end_matches(';'))).await,
            ("timing", _) => {
                self.timing = !self.timing;
                print_line(if self.timing { "timing is on" } else { "timing is off" });
            }
            ("pager", _) => {
                self.pager = !self.pager;
                print_line(if self.pager { "the pager is on" } else { "the pager is off" });
            }
            ("format", name) => {
                let layout = Layout::from_str(name, true).ok();
                let is_text = |layout: &Layout| !matches!(layout, Layout::Arrow | Layout::Parquet);
                let wrong = || Error::invalid("unknown format; expected table, csv, json, ndjson or markdown");
                self.layout = layout.filter(is_text).ok_or_else(wrong)?;
            }
            _ => return Err(Error::invalid(format!("unknown command \\{name}; \\? lists the commands"))),
        }
        Ok(())
    }

    async fn statements(&self, text: &str) -> Result<()> {
        for statement in split_statements(text) {
            self.show(statement).await?;
        }
        let changes_names = tokenize(text).iter().any(|(kind, word)| {
            *kind == TokenKind::Word && ["create", "drop", "alter"].iter().any(|verb| verb.eq_ignore_ascii_case(word))
        });
        if changes_names { self.refresh_names().await } else { Ok(()) }
    }

    async fn show(&self, statement: &str) -> Result<()> {
        let output = Output::standard(self.layout);
        let running = async {
            let began = Instant::now();
            let reply = self.remote.run(statement).await?;
            if self.layout.format().is_some() {
                return output.print(reply, began).await;
            }
            let rendered = output.render(reply, began).await?;
            self.print(&rendered.text);
            if self.timing || rendered.text.is_empty() {
                print_line(&Style::new().dimmed().paint(rendered.summary).to_string());
            }
            Ok(())
        };
        tokio::select! {
            // The call is dropped, which stops the query.
            _ = tokio::signal::ctrl_c() => Err(Error::invalid("stopped")),
            done = running => done,
        }
    }

    fn print(&self, text: &str) {
        let height = crossterm::terminal::size().map_or(24, |(_, rows)| usize::from(rows));
        if !(self.pager && text.lines().count() > height && page(text)) {
            let _ = std::io::stdout().write_all(text.as_bytes());
        }
    }

    /// Asks the server for its functions; an older one does not tell.
    async fn functions(&self) -> Result<Vec<String>> {
        let batches = self.remote.query.query(Query::read("SHOW FUNCTIONS")).await?.batches.collect().await?;
        let names = batches.iter().filter_map(|batch| batch.column_by_name("name")?.as_string_opt::<i32>());
        Ok(names.flat_map(|names| names.iter().flatten().map(str::to_owned)).collect())
    }

    /// Asks the server for the names to complete.
    async fn refresh_names(&self) -> Result<()> {
        let tables = self.remote.query.tables(Caller::default()).await?;
        let columns = tables.iter().flat_map(|table| table.schema.fields()).map(|field| field.name().clone());
        let functions = self.functions().await.unwrap_or_default();
        let tables = tables.iter().map(|table| table.name.clone());
        let mut names: Vec<_> = tables.chain(columns).chain(functions).collect();
        names.sort_unstable();
        names.dedup();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }
}

fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Shows `text` in `less`, and returns whether that worked.
fn page(text: &str) -> bool {
    let child = Command::new("less").args(["-SRFX"]).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return false };
    if let Some(stdin) = &mut child.stdin {
        // Fails when the user quits the pager early: not an error.
        let _ = stdin.write_all(text.as_bytes());
    }
    drop(child.stdin.take());
    child.wait().is_ok()
}

fn editor(names: Names) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu("completion".into()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    let menu = ColumnarMenu::default().with_name("completion");
    let editor = Reedline::create()
        .with_validator(Box::new(CompleteInput))
        .with_highlighter(Box::new(SqlHighlighter))
        .with_completer(Box::new(NameCompleter(names)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_edit_mode(Box::new(Emacs::new(keys)));
    match history_file().and_then(|path| FileBackedHistory::with_file(HISTORY_MAX, path).ok()) {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// Returns the path of the history: in the state folder of the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let folder = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?.join("zepto");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

struct ShellPrompt;

impl Prompt for ShellPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("zepto")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("   ... ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("(search: {}) ", search.term))
    }
}

/// Accepts input whose last statement has its semicolon, and commands of the shell.
struct CompleteInput;

impl Validator for CompleteInput {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.trim_start().starts_with('\\') || is_complete(line) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

struct SqlHighlighter;

impl Highlighter for SqlHighlighter {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let mut styled = StyledText::new();
        for (kind, text) in tokenize(line) {
            let style = match kind {
                TokenKind::Word if is_keyword(text) => Style::new().fg(Color::Blue).bold(),
                TokenKind::Number => Style::new().fg(Color::Cyan),
                TokenKind::Quoted => Style::new().fg(Color::Green),
                TokenKind::Comment => Style::new().dimmed(),
                TokenKind::Word | TokenKind::End | TokenKind::Other => Style::new(),
            };
            styled.push((style, text.to_owned()));
        }
        styled
    }
}

/// Completes keywords, tables, columns and functions.
struct NameCompleter(Names);

impl NameCompleter {
    /// Returns what the word before `position` may become.
    fn suggestions(&self, line: &str, position: usize) -> Vec<Suggestion> {
        let before = &line[..position];
        let start = before
            .rfind(|sign: char| !(sign.is_alphanumeric() || sign == '_'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let begun = before[start..].to_ascii_lowercase();
        if begun.is_empty() {
            return Vec::new();
        }
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keywords = KEYWORDS.iter().map(|keyword| (*keyword).to_owned());
        let fits = |word: &String| word.to_ascii_lowercase().starts_with(&begun);
        let span = Span::new(start, position);
        let suggestion = |value| Suggestion { value, span, append_whitespace: true, ..Suggestion::default() };
        names.iter().cloned().chain(keywords).filter(fits).map(suggestion).collect()
    }
}

impl Completer for NameCompleter {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        CompletionResult::Fresh { suggestions: self.suggestions(line, position).into(), partial: None }
    }
}

#[cfg(test)]
mod tests {
    use crate::shell::{NameCompleter, Names};

    #[test]
    fn names_come_before_keywords() {
        let names = Names::default();
        names.lock().unwrap().extend(["selected".to_owned(), "price".to_owned()]);
        let completer = NameCompleter(names);
        let complete = |line: &str| {
            completer.suggestions(line, line.len()).into_iter().map(|found| found.value).collect::<Vec<_>>()
        };
        assert_eq!(complete("SELECT pri"), ["price"]);
        assert_eq!(complete("sel"), ["selected", "SELECT"]);
        assert!(complete("SELECT ").is_empty());
    }
}

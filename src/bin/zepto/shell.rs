//! The shell: statements typed over several lines, with history, completion and highlighting.

use crate::output::{Layout, Output};
use crate::remote::Remote;
use crate::words::{KEYWORDS, Part, is_keyword, is_whole, parts, statements};
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
use zepto_flight::ports::{Caller, Error, Result};

/// Statements that are remembered.
const HISTORY: usize = 10_000;

const HELP: &str = "\
SQL ends with a semicolon. Ctrl-C stops a query or drops what was typed, Ctrl-D leaves.
  \\d           list the tables
  \\d TABLE     list the columns of a table
  \\timing      show how long things take, or don't
  \\format F    table, csv, json, ndjson, markdown
  \\pager       show long results page by page, or don't
  \\?           this
  \\q           leave";

struct Shell<'a> {
    remote: &'a Remote,
    layout: Layout,
    timing: bool,
    pager: bool,
    names: Names,
}

/// Names of tables and columns, as they were when they were last asked for.
type Names = Arc<Mutex<Vec<String>>>;

/// Runs the shell until its user leaves.
///
/// # Errors
///
/// `Unavailable` where the server is not there to begin with, or the terminal cannot be read.
pub async fn run(remote: &Remote, layout: Option<Layout>) -> Result<()> {
    let names = Names::default();
    let layout = layout.unwrap_or(Layout::Table);
    let mut shell = Shell { remote, layout, timing: true, pager: false, names: names.clone() };
    shell.learn().await?;
    say("zepto: \\? for help, \\q to leave");
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
    /// Does what was typed. Whether to go on.
    async fn enter(&mut self, text: &str) -> bool {
        let done = match text.trim().strip_prefix('\\') {
            Some("q") => return false,
            Some(command) => self.command(command).await,
            None => self.statements(text).await,
        };
        if let Err(error) = done {
            say(&Color::Red.paint(format!("error: {}", error.message())).to_string());
        }
        true
    }

    async fn command(&mut self, command: &str) -> Result<()> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        match (name, argument.trim()) {
            ("?" | "h" | "help", _) => say(HELP),
            ("d", "") => return self.show("SHOW TABLES").await,
            ("d", table) => return self.show(&format!("DESCRIBE {}", table.trim_end_matches(';'))).await,
            ("timing", _) => {
                self.timing = !self.timing;
                say(if self.timing { "timing is on" } else { "timing is off" });
            }
            ("pager", _) => {
                self.pager = !self.pager;
                say(if self.pager { "the pager is on" } else { "the pager is off" });
            }
            ("format", name) => {
                let layout = Layout::from_str(name, true).ok();
                let is_text = |layout: &Layout| !matches!(layout, Layout::Arrow | Layout::Parquet);
                let wrong = || Error::invalid("there are table, csv, json, ndjson and markdown");
                self.layout = layout.filter(is_text).ok_or_else(wrong)?;
            }
            _ => return Err(Error::invalid(format!("there is no \\{name}; \\? lists what there is"))),
        }
        Ok(())
    }

    async fn statements(&self, text: &str) -> Result<()> {
        for statement in statements(text) {
            self.show(statement).await?;
        }
        let changes_names = parts(text).iter().any(|(part, word)| {
            *part == Part::Word && ["create", "drop", "alter"].iter().any(|verb| verb.eq_ignore_ascii_case(word))
        });
        if changes_names { self.learn().await } else { Ok(()) }
    }

    async fn show(&self, statement: &str) -> Result<()> {
        let output = Output::standard(self.layout);
        let running = async {
            let began = Instant::now();
            let reply = self.remote.run(statement).await?;
            if self.layout.format().is_some() {
                return output.answer(reply, began).await;
            }
            let shown = output.shown(reply, began).await?;
            self.print(&shown.text);
            if self.timing || shown.text.is_empty() {
                say(&Style::new().dimmed().paint(shown.summary).to_string());
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

    /// Asks for the names that there are.
    async fn learn(&self) -> Result<()> {
        let tables = self.remote.query.tables(Caller::default()).await?;
        let columns = tables.iter().flat_map(|table| table.schema.fields()).map(|field| field.name().clone());
        let mut names: Vec<_> = tables.iter().map(|table| table.name.clone()).chain(columns).collect();
        names.sort_unstable();
        names.dedup();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        Ok(())
    }
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Shows `text` in `less`. Whether that worked.
fn page(text: &str) -> bool {
    let child = Command::new("less").args(["-SRFX"]).stdin(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return false };
    if let Some(stdin) = &mut child.stdin {
        // Whoever leaves the pager has seen enough.
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
        .with_validator(Box::new(Ends))
        .with_highlighter(Box::new(Colours))
        .with_completer(Box::new(Words(names)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(menu)))
        .with_edit_mode(Box::new(Emacs::new(keys)));
    match history_file().and_then(|path| FileBackedHistory::with_file(HISTORY, path).ok()) {
        Some(history) => editor.with_history(Box::new(history)),
        None => editor,
    }
}

/// Where history is kept: the state folder of the XDG base directory specification.
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

/// A line is whole when its statement ends, or when it is a command of the shell's own.
struct Ends;

impl Validator for Ends {
    fn validate(&self, line: &str) -> ValidationResult {
        if line.trim_start().starts_with('\\') || is_whole(line) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

struct Colours;

impl Highlighter for Colours {
    fn highlight(&self, line: &str, _: usize) -> StyledText {
        let mut styled = StyledText::new();
        for (part, text) in parts(line) {
            let style = match part {
                Part::Word if is_keyword(text) => Style::new().fg(Color::Blue).bold(),
                Part::Number => Style::new().fg(Color::Cyan),
                Part::Quoted => Style::new().fg(Color::Green),
                Part::Comment => Style::new().dimmed(),
                Part::Word | Part::End | Part::Other => Style::new(),
            };
            styled.push((style, text.to_owned()));
        }
        styled
    }
}

/// Completes keywords, tables and columns.
struct Words(Names);

impl Words {
    /// What the word before `position` may become.
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

impl Completer for Words {
    fn complete(&mut self, line: &str, position: usize) -> CompletionResult {
        CompletionResult::Fresh { suggestions: self.suggestions(line, position).into(), partial: None }
    }
}

#[cfg(test)]
mod tests {
    use crate::shell::{Names, Words};

    #[test]
    fn names_come_before_keywords() {
        let names = Names::default();
        names.lock().unwrap().extend(["selected".to_owned(), "price".to_owned()]);
        let words = Words(names);
        let complete =
            |line: &str| words.suggestions(line, line.len()).into_iter().map(|found| found.value).collect::<Vec<_>>();
        assert_eq!(complete("SELECT pr"), ["price"]);
        assert_eq!(complete("sel"), ["selected", "SELECT"]);
        assert!(complete("SELECT ").is_empty());
    }
}

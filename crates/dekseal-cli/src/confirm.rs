//! Asks before an operation that cannot be undone, or that stops a service.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// The option that answers in advance.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Yes {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

impl Yes {
    /// Says what will happen, and asks on a terminal to type `word`. Fails if nobody can answer.
    pub(crate) fn or_typed(self, what: &str, word: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            return Err(Failure::usage(format!(
                "{what} Nothing was changed; pass --yes to do it"
            )));
        }
        let failed = |error: io::Error| Failure::of_io("the terminal", &error);
        let mut terminal = io::stderr();
        write!(terminal, "{what}\nType {word} to go on: ")
            .and_then(|()| terminal.flush())
            .map_err(failed)?;
        let mut typed = String::new();
        io::stdin().lock().read_line(&mut typed).map_err(failed)?;
        if typed.trim() == word {
            Ok(())
        } else {
            Err(Failure::usage(format!(
                "nothing was changed, because {word} was not typed; run the command again"
            )))
        }
    }
}

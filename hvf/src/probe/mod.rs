//! What headers and reports leave open about an engine, asked of the engine itself.
//!
//! Each question makes a machine of its own on a thread of its own, and what the engine
//! refuses is an answer too. The program `hvf-probe` asks them all on a Mac and prints a
//! table for an issue; any other table of entry points can be asked as well.

mod machine;
mod mappings;
mod refusals;
mod running;
mod values;

use crate::error::HvfError;
use crate::sys::Api;
use std::fmt;
use std::thread;
use std::time::Duration;

/// One question, and what asks it.
struct Question {
    text: &'static str,
    ask: fn(&Probe) -> Result<String, HvfError>,
}

/// Who asks.
#[derive(Clone, Copy)]
struct Probe {
    api: Api,
    patience: Patience,
}

/// How long a guest may take, before its vCPU is made to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// A guest that must leave by itself.
    pub leaves: Duration,
    /// A guest of which the question is whether it leaves.
    pub may_stay: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            leaves: Duration::from_secs(10),
            may_stay: Duration::from_secs(1),
        }
    }
}

/// A question and what the engine answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub question: &'static str,
    /// In a line of Markdown.
    pub answer: String,
}

/// All answers of one engine; shown as a table of Markdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The engine's name.
    pub engine: &'static str,
    /// In the order of the questions.
    pub answers: Vec<Answer>,
}

impl Report {
    /// What a question was answered with.
    pub fn answer(&self, question: &str) -> Option<&str> {
        let mut all = self.answers.iter();
        let found = all.find(|answer| answer.question == question)?;
        Some(&found.answer)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| question | answer of `{}` |\n|---|---|", self.engine)?;
        for Answer { question, answer } in &self.answers {
            writeln!(f, "| {question} | {} |", answer.replace('|', "\\|"))?;
        }
        Ok(())
    }
}

/// Asks everything. The process may have no machine meanwhile.
pub fn ask(api: &Api, patience: Patience) -> Report {
    let probe = Probe {
        api: *api,
        patience,
    };
    let groups = [
        values::QUESTIONS,
        refusals::QUESTIONS,
        mappings::QUESTIONS,
        running::QUESTIONS,
    ];
    let answers = groups
        .into_iter()
        .flatten()
        .map(|question| Answer {
            question: question.text,
            answer: asked(&probe, question),
        })
        .collect();
    Report {
        engine: api.name,
        answers,
    }
}

/// A thread has one vCPU, and some engines keep it until the machine ends.
fn asked(probe: &Probe, question: &Question) -> String {
    let asked = thread::scope(|scope| scope.spawn(|| (question.ask)(probe)).join());
    match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the question panicked".to_owned(),
    }
}

/// What a call gave, in a word.
fn outcome<T>(result: Result<T, HvfError>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(HvfError::Call { code, .. }) => code.to_string(),
        Err(error) => error.to_string(),
    }
}

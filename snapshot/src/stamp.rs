//! Whether a snapshot can run here.

use crate::engine_id::EngineId;
use crate::error::cap;
use crate::limits::{MAX_FACTS, MAX_STRING_BYTES};
use crate::{Result, SnapshotError, name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Something the guest has seen of the machine under it, or that people may
/// want to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// The value, as text.
    pub value: String,
    /// Whether a machine only runs where the value is the same.
    pub must_match: bool,
}

/// What a machine was under. Written at capture, and made again by whoever
/// wants to restore. Which facts there are and what they are called is up to
/// whoever uses the crate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// The engine.
    pub engine: EngineId,
    /// All else, by name.
    pub facts: BTreeMap<String, Fact>,
}

impl Stamp {
    /// A stamp without facts.
    #[must_use]
    pub fn new(engine: EngineId) -> Self {
        Self {
            engine,
            facts: BTreeMap::new(),
        }
    }

    /// Adds a fact that must be the same where the machine is to run.
    #[must_use]
    pub fn require(self, name: impl Into<String>, value: impl ToString) -> Self {
        self.fact(name.into(), value.to_string(), true)
    }

    /// Adds a fact that is told and not compared.
    #[must_use]
    pub fn note(self, name: impl Into<String>, value: impl ToString) -> Self {
        self.fact(name.into(), value.to_string(), false)
    }

    fn fact(mut self, name: String, value: String, must_match: bool) -> Self {
        self.facts.insert(name, Fact { value, must_match });
        self
    }

    /// The value of a fact.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.facts.get(name).map(|fact| fact.value.as_str())
    }

    /// Whether a machine with this stamp runs where the stamp is `here`. A fact
    /// that one of them requires must be the same in both.
    ///
    /// # Errors
    /// The engine if that is another one, else the first fact that differs.
    pub fn check(&self, here: &Self) -> Result<()> {
        if self.engine != here.engine {
            return Err(SnapshotError::WrongEngine {
                found: self.engine.clone(),
                here: here.engine.clone(),
            });
        }
        let names: BTreeSet<&String> = self.facts.keys().chain(here.facts.keys()).collect();
        for name in names {
            let (found, here) = (self.facts.get(name), here.facts.get(name));
            let is_required = |fact: Option<&Fact>| fact.is_some_and(|fact| fact.must_match);
            let value = |fact: Option<&Fact>| fact.map(|fact| fact.value.clone());
            let (required, found, here) = (
                is_required(found) || is_required(here),
                value(found),
                value(here),
            );
            if required && found != here {
                let absent = || "absent".to_owned();
                return Err(SnapshotError::WrongFact {
                    fact: name.clone(),
                    found: found.unwrap_or_else(absent),
                    here: here.unwrap_or_else(absent),
                });
            }
        }
        Ok(())
    }

    pub(crate) fn validate(&self) -> Result<()> {
        name::check(self.engine.as_str())?;
        cap("number of facts", self.facts.len() as u64, MAX_FACTS as u64)?;
        for (name, fact) in &self.facts {
            name::check(name)?;
            cap("string", fact.value.len() as u64, MAX_STRING_BYTES as u64)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stamp;

    #[test]
    fn noted_facts_may_differ_and_required_ones_may_not() {
        let here = stamp().note("producer", "another").note("host", "told");
        stamp().check(&here).unwrap();
        here.check(&stamp()).unwrap();
        // It is enough that one of the two cares.
        let strict = stamp().require("producer", "another");
        for error in [stamp().check(&strict), strict.check(&stamp())] {
            let error = error.unwrap_err();
            assert!(error.to_string().contains("producer"), "{error}");
        }
    }

    #[test]
    fn every_difference_is_named() {
        let changes: [(&str, Stamp); 4] = [
            (
                "engine",
                Stamp {
                    engine: EngineId::new("other"),
                    ..stamp()
                },
            ),
            ("architecture", stamp().require("architecture", "x86_64")),
            ("kernel", stamp().require("kernel", "another")),
            (
                "cpu.ID_AA64ZFR0_EL1",
                stamp().require("cpu.ID_AA64ZFR0_EL1", "0x1"),
            ),
        ];
        for (name, here) in changes {
            for error in [stamp().check(&here), here.check(&stamp())] {
                let error = error.unwrap_err();
                assert!(error.to_string().contains(name), "{error}");
                assert!(error.wants_rebake());
            }
        }
    }

    #[test]
    fn names_and_values_are_bounded() {
        stamp().validate().unwrap();
        let long = "x".repeat(MAX_STRING_BYTES + 1);
        for bad in [
            stamp().note("a/b", ""),
            stamp().note("long", long),
            (0..=MAX_FACTS).fold(stamp(), |stamp, n| stamp.note(format!("fact.{n}"), n)),
            Stamp::new(EngineId::new("")),
            Stamp::new(EngineId::from("a b".to_owned())),
        ] {
            bad.validate().unwrap_err();
        }
    }
}

//! A pause that the guest does not notice on its clocks.

use super::RunningMachine;
use super::control::{Power, Task};
use super::error::MachineError;

/// Where the clock of a machine stood when it was brought to a
/// [standstill](RunningMachine::stand_still).
#[derive(Debug)]
#[must_use = "the machine stands still until it goes on from it"]
pub struct Standstill {
    /// The guest's counter; `None` if no vCPU was on that could count.
    counter: Option<u64>,
}

impl RunningMachine {
    /// Pauses the machine as [`RunningMachine::pause`] does, for as long as somebody
    /// likes: [`RunningMachine::go_on`] has its counters go on from where they are now,
    /// so that no timer of the guest runs out meanwhile. What it has in memory, its
    /// wall clock included, does not change, either.
    pub fn stand_still(&self) -> Result<Standstill, MachineError> {
        self.pause()?;
        match self.stood_at() {
            Ok(counter) => Ok(Standstill { counter }),
            Err(error) => {
                self.resume();
                Err(error)
            }
        }
    }

    /// Lets a machine go on that stands still. After an error it stands still.
    pub fn go_on(&self, from: &Standstill) -> Result<(), MachineError> {
        if let Some(guest) = from.counter {
            let parts = self.parts();
            let parts = parts.as_ref().ok_or(MachineError::Gone)?;
            // One moment for all: their counters agree as they did before.
            let counter = parts.vm.counter();
            let power = self.control.power();
            let tasks = (0..).zip(&power);
            self.perform(
                tasks
                    .map(|(index, _)| (index, Task::Count(guest, counter)))
                    .collect(),
            )?;
        }
        self.resume();
        Ok(())
    }

    /// The guest's counter, by a vCPU that is on. All agree.
    fn stood_at(&self) -> Result<Option<u64>, MachineError> {
        let power = self.control.power();
        let mut on = (0..).zip(power).filter(|(_, power)| *power == Power::On);
        let Some((index, _)) = on.next() else {
            return Ok(None);
        };
        let states = self.perform(vec![(index, Task::Save)])?;
        Ok(states
            .into_iter()
            .flatten()
            .next()
            .map(|state| state.counter))
    }
}

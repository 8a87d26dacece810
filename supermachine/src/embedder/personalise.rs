//! Making a copy a machine of its own. The guest's kernel keeps programs from
//! running until it is one.

use crate::clock::{Reading, WallClock};
use crate::deadline::Deadline;
use crate::exec::Channel;
use crate::{Error, random};
use exec_proto::client::{Event, Session};
use exec_proto::{Resume, Resumed};

/// What makes a copy differ from all others.
#[derive(Clone, Debug, Default)]
pub struct Personality {
    pub hostname: Option<String>,
    /// What becomes its `/etc/machine-id`.
    pub machine_id: Option<[u8; 16]>,
    pub vcpus: u32,
    /// Guest memory in MiB; none for what the copy has to begin with.
    pub memory_mib: Option<usize>,
    /// Tells what time it is there.
    pub clock: WallClock,
}

/// One round trip: everything that must differ between copies. Programs that
/// were held go on, unless they are to `stay_held`.
pub fn resume_guest(
    channel: &Channel,
    generation: [u8; 16],
    identity: &Personality,
    time: Reading,
    stay_held: bool,
    deadline: Deadline,
) -> Result<Resumed, Error> {
    channel.limit(deadline);
    let mut seed = [0; 64];
    random::fill_random(&mut seed)?;
    let resume = Resume {
        hostname: identity.hostname.as_deref().unwrap_or_default().as_bytes(),
        vcpus: identity.vcpus,
        machine_id: identity.machine_id,
        stay_held,
        ..Resume::new(&seed, time.wall_ns, generation)
    };
    channel.request(|session| session.resume(&resume))?;
    let mut buffer = Vec::new();
    loop {
        // A connection that breaks was dialed by the machine that was there
        // before: the caller takes the next.
        match channel.event(&mut buffer)? {
            Event::Resumed(resumed) if resumed.reseeded => {
                channel.limit(Deadline::none());
                return Ok(resumed);
            }
            Event::Resumed(_) => {
                return Err(Error::NotUnique {
                    reason: "its random number generator was not reseeded".into(),
                });
            }
            Event::Failed(failure) => {
                return Err(Error::NotUnique {
                    reason: failure.message,
                });
            }
            _ => {}
        }
    }
}

/// Lets programs go on that stayed held.
pub fn release_guest(channel: &Channel, deadline: Deadline) -> Result<(), Error> {
    channel.limit(deadline);
    channel.request(Session::release)?;
    await_done(channel)
}

/// Waits until a request is done that has no other answer.
pub fn await_done(channel: &Channel) -> Result<(), Error> {
    let mut buffer = Vec::new();
    loop {
        match channel.next_event(&mut buffer)? {
            Event::Done => {
                channel.limit(Deadline::none());
                return Ok(());
            }
            Event::Failed(failure) => {
                return Err(Error::Refused {
                    message: failure.message,
                });
            }
            _ => {}
        }
    }
}

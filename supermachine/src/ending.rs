//! The end of a machine in good order.

use crate::Error;
use crate::deadline::Deadline;
use crate::exec::{Channel, Opens};
use crate::limits::WORKLOAD_END_PAUSE;
use exec_proto::WorkloadState;
use exec_proto::client::{Event, Session};

/// Asks a guest to end its workload and to turn itself off. Gives the connection on
/// which it was asked, which must stay open for that.
pub fn ask_to_end(guest: &impl Opens, deadline: Deadline) -> Result<Channel, Error> {
    let number = stop_signal(guest.image_config().stop_signal.as_deref());
    let patience = Deadline::within(deadline.left_of(deadline.limit()).mul_f64(0.8));
    let mut is_told = false;
    loop {
        let channel = guest.open_session(deadline, &|session| session.workload_status(0))?;
        let report = channel.answer_until(deadline, |event| match event {
            Event::Workload(report) => Some(report),
            _ => None,
        })?;
        if !matches!(report.state, WorkloadState::Running { .. }) || patience.has_passed() {
            break;
        }
        if !is_told {
            let channel =
                guest.open_session(deadline, &|session| session.signal_workload(number))?;
            channel.answer_until(deadline, |event| matches!(event, Event::Done).then_some(()))?;
            is_told = true;
        }
        std::thread::sleep(patience.left_of(WORKLOAD_END_PAUSE));
    }
    guest.open_session(deadline, &Session::shutdown)
}

/// The number of a signal as images name it; that of TERM for none, and for one that is
/// not known.
fn stop_signal(name: Option<&str>) -> u32 {
    const TERM: u32 = 15;
    /// The first that glibc and musl leave to programs.
    const RTMIN: u32 = 34;
    let name = name.unwrap_or_default();
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let number = match name {
        "HUP" => Some(1),
        "INT" => Some(2),
        "QUIT" => Some(3),
        "KILL" => Some(9),
        "USR1" => Some(10),
        "USR2" => Some(12),
        "WINCH" => Some(28),
        "RTMIN" => Some(RTMIN),
        _ => match name.strip_prefix("RTMIN+") {
            Some(more) => more.parse().ok().and_then(|more| RTMIN.checked_add(more)),
            None => name.parse().ok(),
        },
    };
    number
        .filter(|number| (1..=64).contains(number))
        .unwrap_or(TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_their_stop_signal_in_many_ways() {
        let named = ["SIGINT", "QUIT", "SIGWINCH", "SIGRTMIN+3", "10"];
        assert_eq!(
            named.map(|name| stop_signal(Some(name))),
            [2, 3, 28, 37, 10]
        );
        assert_eq!(stop_signal(None), 15);
        for odd in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "SIGRTMIN+99",
            "RTMIN+4294967295",
            "NOSUCH",
        ] {
            assert_eq!(stop_signal(Some(odd)), 15, "{odd}");
        }
    }
}

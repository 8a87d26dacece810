//! Flow control (virtio 1.2 §5.10.6.3): all counters are modulo 2³².

/// Bytes the guest may have on the way to a host reader that does not read;
/// our `buf_alloc`. A stream hears of room four times for so many bytes.
pub(super) const BUFFER_BYTES: u32 = 256 << 10;

/// What the guest may send to us.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ReceiveCredit {
    /// Bytes received.
    received: u32,
    /// Bytes passed on: our `fwd_cnt`.
    forwarded: u32,
    /// What the guest last heard of `forwarded`.
    announced: u32,
}

impl ReceiveCredit {
    /// Counts `len` received bytes; false if the guest was not allowed them.
    pub(super) fn receive(&mut self, len: usize) -> bool {
        let held = self.received.wrapping_sub(self.forwarded);
        match u32::try_from(len) {
            Ok(len) if len <= BUFFER_BYTES.saturating_sub(held) => {
                self.received = self.received.wrapping_add(len);
                true
            }
            _ => false,
        }
    }

    /// Counts `len` bytes as passed on, at most those held; true if the guest
    /// should hear of it now.
    pub(super) fn forward(&mut self, len: usize) -> bool {
        let held = self.received.wrapping_sub(self.forwarded);
        let len = u32::try_from(len).map_or(held, |len| len.min(held));
        self.forwarded = self.forwarded.wrapping_add(len);
        let known_used = self.received.wrapping_sub(self.announced);
        let unannounced = self.forwarded.wrapping_sub(self.announced);
        // While the guest knows of half a buffer it does not wait for us.
        known_used > BUFFER_BYTES / 2
            && (unannounced >= BUFFER_BYTES / 4 || self.forwarded == self.received)
    }

    /// The `fwd_cnt` of a packet that goes out now.
    pub(super) fn announce(&mut self) -> u32 {
        self.announced = self.forwarded;
        self.forwarded
    }
}

/// What we may send to the guest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SendCredit {
    /// Bytes sent.
    sent: u32,
    peer_buf_alloc: u32,
    peer_fwd_cnt: u32,
    /// The guest has been asked for more, and has none yet.
    requested: bool,
}

impl SendCredit {
    /// Takes over what a packet of the guest says.
    pub(super) fn learn(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.peer_buf_alloc = buf_alloc;
        self.peer_fwd_cnt = fwd_cnt;
        // Asking again before there is room would only make the guest repeat
        // itself; it tells by itself when its reader takes something.
        if self.available() > 0 {
            self.requested = false;
        }
    }

    /// Bytes the guest has room for. A guest that lies about what it took
    /// only makes this 0.
    pub(super) fn available(&self) -> usize {
        let in_flight = self.sent.wrapping_sub(self.peer_fwd_cnt);
        self.peer_buf_alloc.saturating_sub(in_flight) as usize
    }

    /// Counts sent bytes, at most those available.
    pub(super) fn send(&mut self, len: u32) {
        self.sent = self.sent.wrapping_add(len);
    }

    /// Whether the guest should be asked for room; true once per shortage.
    pub(super) fn should_request(&mut self) -> bool {
        !std::mem::replace(&mut self.requested, true)
    }

    /// Whether there is room, or the guest has yet to be asked for it.
    pub(super) fn can_go_on(&self) -> bool {
        self.available() > 0 || !self.requested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_may_fill_the_buffer_and_no_more() {
        let mut credit = ReceiveCredit::default();
        assert!(credit.receive(BUFFER_BYTES as usize));
        assert!(!credit.receive(1));
        credit.forward(10);
        assert!(!credit.receive(11));
        assert!(credit.receive(10));
        assert!(!credit.receive(usize::MAX));
    }

    #[test]
    fn counters_wrap_without_a_trace() {
        let mut receive = ReceiveCredit {
            received: u32::MAX - 5,
            forwarded: u32::MAX - 5,
            announced: u32::MAX - 5,
        };
        assert!(receive.receive(100));
        receive.forward(100);
        assert_eq!(receive.announce(), 94);
        let mut send = SendCredit {
            sent: u32::MAX - 5,
            ..SendCredit::default()
        };
        send.learn(1000, u32::MAX - 5);
        send.send(600);
        assert_eq!(send.available(), 400);
        send.learn(1000, 94);
        assert_eq!(send.available(), 500);
    }

    /// Whatever the guest sends and the reader takes, a guest that has used
    /// up what it knows of hears of more once there is some.
    #[test]
    fn waiting_guest_always_hears_of_room() {
        for step in [1, 7, 1000, 40_000, BUFFER_BYTES as usize] {
            let mut credit = ReceiveCredit::default();
            for _ in 0..10 {
                // Up to the last byte known of.
                let known = credit.received.wrapping_sub(credit.announced);
                assert!(credit.receive((BUFFER_BYTES - known) as usize));
                let mut told = false;
                while credit.forwarded != credit.received {
                    if credit.forward(step) {
                        credit.announce();
                        told = true;
                    }
                }
                assert!(told, "step {step}");
            }
        }
    }

    #[test]
    fn lying_guest_gets_nothing() {
        let mut credit = SendCredit::default();
        credit.send(100);
        credit.learn(1000, 101);
        assert_eq!(credit.available(), 0);
        assert!(credit.should_request());
        assert!(!credit.should_request() && !credit.can_go_on());
        credit.learn(1000, 100);
        assert!(credit.can_go_on() && credit.should_request());
    }

    /// Whatever the guest says, and however far the counters have come, it is
    /// sent no more than the buffer that it names has room for.
    #[test]
    fn claims_of_any_kind_never_make_more_room_than_the_buffer_has() {
        let edges = [0, 1, 2, 1000, 1 << 31, u32::MAX - 1, u32::MAX];
        for sent in edges {
            for said in edges {
                for buf_alloc in edges {
                    let mut credit = SendCredit {
                        sent,
                        ..SendCredit::default()
                    };
                    credit.learn(buf_alloc, said);
                    let in_flight = u64::from(sent.wrapping_sub(said));
                    let room = u64::from(buf_alloc).saturating_sub(in_flight);
                    assert_eq!(credit.available() as u64, room);
                    // Back to before what it had said.
                    credit.learn(buf_alloc, said.wrapping_sub(1));
                    assert!(credit.available() as u64 <= u64::from(buf_alloc));
                }
            }
        }
    }
}

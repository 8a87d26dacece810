use super::*;
use crate::link::attention;

const BASE: GicConfig = GicConfig {
    distributor: 0x0800_0000,
    redistributor: 0x080a_0000,
    msi: None,
};
const GICD: u64 = BASE.distributor;

/// A controller with `vcpus` vCPUs, everything enabled as Linux leaves it:
/// all interrupts Group 1 with priority 0xa0, SPIs routed to vCPU 0.
fn booted(vcpus: usize) -> (Gic, Vec<Arc<VcpuShared>>) {
    booted_with(BASE, vcpus)
}

fn booted_with(config: GicConfig, vcpus: usize) -> (Gic, Vec<Arc<VcpuShared>>) {
    let gic = Gic::new(config);
    let links: Vec<_> = (0..vcpus).map(|i| Arc::new(VcpuShared::new(i))).collect();
    for link in &links {
        gic.attach(link);
    }
    gic.mmio_write(GICD, 4, 0x12, 0);
    for word in 1..4 {
        gic.mmio_write(GICD + 0x100 + 4 * word, 4, 0xffff_ffff, 0);
    }
    for word in 8..32 {
        gic.mmio_write(GICD + 0x400 + 4 * word, 4, 0xa0a0_a0a0, 0);
    }
    for vcpu in 0..vcpus {
        let sgi_frame = gic.redistributor_base(vcpu) + 0x1_0000;
        gic.mmio_write(sgi_frame + 0x100, 4, 0xffff_ffff, vcpu);
        for word in 0..8 {
            gic.mmio_write(sgi_frame + 0x400 + 4 * word, 4, 0xa0a0_a0a0, vcpu);
        }
        gic.icc_write(vcpu, IccReg::Pmr, 0xf0);
        gic.icc_write(vcpu, IccReg::Igrpen1, 1);
    }
    (gic, links)
}

fn set_priority(gic: &Gic, intid: u64, priority: u64) {
    gic.mmio_write(GICD + 0x400 + intid, 1, priority, 0);
}

fn iar(gic: &Gic, vcpu: usize) -> u64 {
    gic.icc_read(vcpu, IccReg::Iar1)
}

fn eoi(gic: &Gic, vcpu: usize, intid: u64) {
    gic.icc_write(vcpu, IccReg::Eoir1, intid);
}

fn running(gic: &Gic, vcpu: usize) -> u64 {
    gic.icc_read(vcpu, IccReg::Rpr)
}

#[test]
fn an_spi_goes_from_pending_to_active_to_idle() {
    let (gic, links) = booted(1);
    assert_eq!(iar(&gic, 0), 1023);
    gic.set_spi(33, true).unwrap();
    assert!(gic.irq_line(0) && gic.wakes(0));
    assert_eq!(links[0].take(attention::IRQ), attention::IRQ);
    assert_eq!(gic.icc_read(0, IccReg::Hppir1), 33);
    assert_eq!(iar(&gic, 0), 33);
    assert!(!gic.irq_line(0));
    assert_eq!(running(&gic, 0), 0xa0);
    assert_eq!(gic.distributor_read(0x304), 2);
    gic.set_spi(33, false).unwrap();
    eoi(&gic, 0, 33);
    assert_eq!(running(&gic, 0), 0xff);
    assert_eq!(gic.distributor_read(0x304), 0);
    assert_eq!(iar(&gic, 0), 1023);
}

#[test]
fn a_level_still_high_at_eoi_is_pending_again() {
    let (gic, links) = booted(1);
    gic.set_spi(40, true).unwrap();
    assert_eq!(iar(&gic, 0), 40);
    links[0].take(attention::IRQ);
    eoi(&gic, 0, 40);
    assert!(gic.irq_line(0));
    assert_eq!(links[0].take(attention::IRQ), attention::IRQ);
    gic.set_spi(40, false).unwrap();
    assert!(!gic.irq_line(0));
}

#[test]
fn a_more_urgent_interrupt_preempts_and_nests() {
    let (gic, _links) = booted(1);
    set_priority(&gic, 50, 0x40);
    gic.set_spi(49, true).unwrap();
    assert_eq!(iar(&gic, 0), 49);
    gic.set_spi(48, true).unwrap();
    assert!(!gic.irq_line(0), "equal priority does not preempt");
    gic.set_spi(50, true).unwrap();
    assert!(gic.irq_line(0));
    assert_eq!(iar(&gic, 0), 50);
    assert_eq!(running(&gic, 0), 0x40);
    gic.set_spi(50, false).unwrap();
    eoi(&gic, 0, 50);
    assert_eq!(running(&gic, 0), 0xa0);
    gic.set_spi(49, false).unwrap();
    eoi(&gic, 0, 49);
    assert_eq!(iar(&gic, 0), 48);
}

#[test]
fn pmr_masks_interrupts_of_equal_and_lower_urgency() {
    let (gic, links) = booted(1);
    gic.icc_write(0, IccReg::Pmr, 0xa0);
    gic.set_spi(60, true).unwrap();
    assert!(!gic.irq_line(0));
    assert_eq!(iar(&gic, 0), 1023);
    assert_eq!(gic.icc_read(0, IccReg::Hppir1), 60);
    links[0].take(attention::IRQ);
    gic.icc_write(0, IccReg::Pmr, 0xa8);
    assert!(gic.irq_line(0));
    assert_eq!(links[0].take(attention::IRQ), attention::IRQ);
    assert_eq!(iar(&gic, 0), 60);
}

#[test]
fn binary_point_joins_priorities_into_groups() {
    let (gic, _links) = booted(1);
    set_priority(&gic, 50, 0x80);
    // Group priority is bits 7:6 only: 0x80 and 0xa0 are one group.
    gic.icc_write(0, IccReg::Bpr1, 6);
    gic.set_spi(49, true).unwrap();
    assert_eq!(iar(&gic, 0), 49);
    gic.set_spi(50, true).unwrap();
    assert_eq!(running(&gic, 0), 0x80);
    assert!(!gic.irq_line(0));
    set_priority(&gic, 50, 0x78);
    assert!(gic.irq_line(0));
    gic.icc_write(0, IccReg::Bpr1, 0);
    assert_eq!(gic.icc_read(0, IccReg::Bpr1), 3, "minimum");
}

#[test]
fn common_binary_point_shows_and_uses_bpr0() {
    let (gic, _links) = booted(1);
    gic.icc_write(0, IccReg::Bpr0, 5);
    gic.icc_write(0, IccReg::Ctlr, 1);
    assert_eq!(gic.icc_read(0, IccReg::Bpr1), 6);
    gic.icc_write(0, IccReg::Bpr1, 3);
    assert_eq!(gic.icc_read(0, IccReg::Bpr1), 6, "writes are ignored");
}

#[test]
fn split_eoi_mode_deactivates_by_dir_only() {
    let (gic, _links) = booted(1);
    gic.icc_write(0, IccReg::Ctlr, 2);
    gic.set_spi(70, true).unwrap();
    assert_eq!(iar(&gic, 0), 70);
    eoi(&gic, 0, 70);
    assert_eq!(running(&gic, 0), 0xff);
    assert!(!gic.irq_line(0), "still active");
    gic.icc_write(0, IccReg::Dir, 70);
    assert!(gic.irq_line(0));
}

#[test]
fn eoi_of_special_intids_changes_nothing() {
    let (gic, _links) = booted(1);
    gic.set_spi(70, true).unwrap();
    iar(&gic, 0);
    for intid in [1020, 1021, 1022, 1023, 0xff_ffff] {
        eoi(&gic, 0, intid);
        assert_eq!(running(&gic, 0), 0xa0);
    }
}

#[test]
fn sgis_reach_exactly_the_listed_vcpus() {
    let (gic, links) = booted(3);
    // Targets 0 and 2 of cluster 0, SGI 5, from vCPU 1.
    gic.icc_write(1, IccReg::Sgi1r, 5 << 24 | 0b101);
    assert_eq!(iar(&gic, 0), 5);
    assert_eq!(iar(&gic, 1), 1023);
    assert_eq!(iar(&gic, 2), 5);
    assert_eq!(links[1].take(attention::IRQ), 0);
    // All but the sender.
    gic.icc_write(0, IccReg::Sgi1r, 1 << 40);
    assert_eq!(iar(&gic, 0), 1023);
    eoi(&gic, 2, 5);
    assert_eq!(iar(&gic, 1), 0);
    assert_eq!(iar(&gic, 2), 0);
}

#[test]
fn sgis_find_every_affinity_level() {
    let (gic, _links) = booted(20);
    gic.set_affinity(18, 1 << 31 | 7 << 32 | 6 << 16 | 5 << 8 | 4);
    // vCPU 17 is Aff1 = 1, Aff0 = 1.
    gic.icc_write(0, IccReg::Sgi1r, 1 << 24 | 1 << 16 | 1 << 1);
    assert_eq!(iar(&gic, 17), 1);
    assert_eq!(iar(&gic, 1), 1023);
    let target = 7 << 48 | 6 << 32 | 5 << 16 | 1 << 4;
    gic.icc_write(0, IccReg::Sgi1r, 2 << 24 | target);
    assert_eq!(iar(&gic, 18), 2);
    assert_eq!(iar(&gic, 4), 1023);
}

#[test]
fn an_sgi_to_oneself_is_delivered() {
    let (gic, links) = booted(2);
    gic.icc_write(1, IccReg::Sgi1r, 3 << 24 | 0b10);
    assert_eq!(links[1].take(attention::IRQ), attention::IRQ);
    assert_eq!(iar(&gic, 1), 3);
    eoi(&gic, 1, 3);
    assert_eq!(iar(&gic, 1), 1023);
}

#[test]
fn routing_follows_irouter_while_the_interrupt_is_pending() {
    let (gic, links) = booted(2);
    gic.set_spi(32, true).unwrap();
    assert!(gic.irq_line(0) && !gic.irq_line(1));
    gic.mmio_write(GICD + 0x6000 + 8 * 32, 8, 1, 0);
    assert!(!gic.irq_line(0) && gic.irq_line(1));
    assert_eq!(links[1].take(attention::IRQ), attention::IRQ);
    // To an affinity nobody has.
    gic.mmio_write(GICD + 0x6000 + 8 * 32, 8, 9, 0);
    assert!(!gic.irq_line(0) && !gic.irq_line(1));
    // To any.
    gic.mmio_write(GICD + 0x6000 + 8 * 32, 8, 1 << 31, 0);
    assert!(gic.irq_line(0));
    assert_eq!(gic.mmio_read(GICD + 0x6000 + 8 * 32, 8, 0), 1 << 31);
}

#[test]
fn edge_spis_ignore_the_low_level_and_count_one_per_edge() {
    let (gic, _links) = booted(1);
    gic.mmio_write(GICD + 0xc08, 4, 0xaaaa_aaaa, 0);
    gic.set_spi(35, true).unwrap();
    gic.set_spi(35, false).unwrap();
    assert_eq!(iar(&gic, 0), 35);
    eoi(&gic, 0, 35);
    assert_eq!(iar(&gic, 0), 1023);
}

#[test]
fn disabled_and_group_0_interrupts_stay_silent() {
    let (gic, _links) = booted(1);
    gic.mmio_write(GICD + 0x184, 4, 1 << 1, 0);
    gic.set_spi(33, true).unwrap();
    assert!(!gic.irq_line(0));
    assert_eq!(gic.mmio_read(GICD + 0x204, 4, 0), 1 << 1);
    gic.mmio_write(GICD + 0x84, 4, !(1 << 1), 0);
    gic.mmio_write(GICD + 0x104, 4, 1 << 1, 0);
    assert!(!gic.irq_line(0));
    gic.mmio_write(GICD + 0x84, 4, 0xffff_ffff, 0);
    assert!(gic.irq_line(0));
    gic.mmio_write(GICD, 4, 0x10, 0);
    assert!(!gic.irq_line(0), "group 1 off in GICD_CTLR");
    gic.mmio_write(GICD, 4, 0x12, 0);
    gic.icc_write(0, IccReg::Igrpen1, 0);
    assert!(!gic.irq_line(0), "group 1 off in ICC_IGRPEN1");
}

#[test]
fn pending_and_active_can_be_written() {
    let (gic, _links) = booted(1);
    gic.distributor_write(0x204, 1 << 3);
    assert_eq!(iar(&gic, 0), 35);
    eoi(&gic, 0, 35);
    gic.distributor_write(0x204, 1 << 3);
    gic.distributor_write(0x284, 1 << 3);
    assert_eq!(iar(&gic, 0), 1023);
    gic.distributor_write(0x304, 1 << 3);
    gic.set_spi(35, true).unwrap();
    assert!(!gic.irq_line(0), "active");
    gic.distributor_write(0x384, 1 << 3);
    assert!(gic.irq_line(0));
    gic.redistributor_write(0, 0x1_0200, 1 << 4);
    assert_eq!(gic.redistributor_read(0, 0x1_0200), 1 << 4);
    assert_eq!(iar(&gic, 0), 4, "lower INTID first");
}

#[test]
fn identification_matches_what_is_there() {
    let (gic, _links) = booted(2);
    let typer = gic.mmio_read(GICD + 4, 4, 0);
    assert_eq!(
        (typer & 0x1f) * 32 + 31,
        u64::from(SPI_BASE + SPI_COUNT - 1)
    );
    assert_eq!(typer >> 17 & 1, 0, "no LPIs");
    assert_eq!(gic.mmio_read(GICD + 0xffe8, 4, 0), 0x3b);
    assert_eq!(gic.mmio_read(GICD, 4, 0) & 0x70, 0x50);
    let last = |vcpu| gic.mmio_read(gic.redistributor_base(vcpu) + 8, 8, vcpu) >> 4 & 1;
    assert_eq!((last(0), last(1)), (0, 1));
    assert_eq!(gic.mmio_read(gic.redistributor_base(1) + 12, 4, 1), 1);
    assert_eq!(
        gic.mmio_read(gic.redistributor_base(1) + 0xffe8, 4, 1),
        0x3b
    );
    assert!(!gic.contains(gic.redistributor_base(2)));
    assert!(gic.contains(gic.redistributor_base(1) + 0x1_fffc));
    assert_eq!(gic.icc_read(0, IccReg::Ctlr) >> 8 & 7, 4);
    assert_eq!(gic.icc_read(0, IccReg::Sre), 7);
}

#[test]
fn waker_mirrors_sleep_into_children_asleep() {
    let (gic, _links) = booted(1);
    let waker = gic.redistributor_base(0) + 0x14;
    assert_eq!(gic.mmio_read(waker, 4, 0), 6);
    gic.mmio_write(waker, 4, 0, 0);
    assert_eq!(gic.mmio_read(waker, 4, 0), 0);
}

#[test]
fn private_interrupt_configuration_is_fixed() {
    let (gic, _links) = booted(1);
    let frame = gic.redistributor_base(0) + 0x1_0000;
    gic.mmio_write(frame + 0xc00, 4, 0, 0);
    gic.mmio_write(frame + 0xc04, 4, 0xffff_ffff, 0);
    assert_eq!(gic.mmio_read(frame + 0xc00, 4, 0), 0xaaaa_aaaa);
    assert_eq!(gic.mmio_read(frame + 0xc04, 4, 0), 0);
}

#[test]
fn every_offset_and_size_is_harmless() {
    let (gic, _links) = booted(1);
    let frames = [(GICD, 0x1_0000), (gic.redistributor_base(0), 0x2_0000)];
    for (base, bytes) in frames {
        for offset in (0..bytes).step_by(3) {
            for size in [1, 2, 4, 8, 16] {
                gic.mmio_write(base + offset, size, u64::MAX, 0);
                gic.mmio_read(base + offset, size, 0);
            }
        }
    }
    for offset in 0..=0xffff {
        gic.distributor_write(offset, u64::MAX);
        gic.distributor_read(offset);
    }
    for intid in [0, 31, 128, 1019, 1020, u32::MAX] {
        assert_eq!(gic.set_spi(intid, true), Err(BadInterrupt { intid }));
    }
    // vCPUs that do not exist.
    gic.icc_write(64, IccReg::Pmr, 0);
    assert_eq!(gic.icc_read(64, IccReg::Iar1), 0);
    assert!(!gic.irq_line(usize::MAX));
}

#[test]
fn a_message_frame_owns_its_interrupts() {
    let msi = MsiConfig {
        base: 0x0802_0000,
        first: 64,
        count: 16,
    };
    let config = GicConfig {
        msi: Some(msi),
        ..BASE
    };
    let (gic, _links) = booted_with(config, 1);
    assert!(gic.set_spi(64, true).is_err());
    assert!(gic.set_spi(80, true).is_ok());
    assert!(gic.send_msi(msi.base + MSI_SET_SPI, 80).is_err());
    assert!(gic.send_msi(msi.base, 64).is_err());
    gic.send_msi(msi.base + MSI_SET_SPI, 79).unwrap();
    assert_eq!(iar(&gic, 0), 79);
    eoi(&gic, 0, 79);
    gic.mmio_write(msi.base + MSI_SET_SPI, 4, 70, 0);
    assert_eq!(iar(&gic, 0), 70);
    assert_eq!(gic.mmio_read(msi.base + 8, 4, 0), 64 << 16 | 16);
}

/// A controller with some of everything in it.
fn busy() -> (Gic, Vec<Arc<VcpuShared>>) {
    let (gic, links) = booted(2);
    gic.mmio_write(GICD + 0x6000 + 8 * 40, 8, 1, 0);
    gic.mmio_write(GICD + 0xc08, 4, 0xaaaa_aaaa, 0);
    gic.set_spi(35, true).unwrap();
    gic.set_spi(40, true).unwrap();
    gic.set_spi(90, true).unwrap();
    assert_eq!(iar(&gic, 1), 40);
    gic.icc_write(0, IccReg::Sgi1r, 7 << 24 | 0b10);
    (gic, links)
}

#[test]
fn saved_state_round_trips_with_pending_and_active_interrupts() {
    let (gic, _links) = busy();
    let blob = gic.save();
    let other = Gic::new(BASE);
    let links: Vec<_> = (0..2).map(|i| Arc::new(VcpuShared::new(i))).collect();
    for link in &links {
        other.attach(link);
    }
    other.restore(&blob).unwrap();
    assert_eq!(other.save(), blob);
    for vcpu in 0..2 {
        for reg in [IccReg::Pmr, IccReg::Ap1r0, IccReg::Igrpen1] {
            other.icc_write(vcpu, reg, gic.icc_read(vcpu, reg));
        }
    }
    assert_eq!(iar(&other, 0), 35);
    assert_eq!(iar(&other, 1), 1023, "40 still runs there");
    eoi(&other, 1, 40);
    assert_eq!(iar(&other, 1), 7);
    eoi(&other, 0, 35);
    assert_eq!(iar(&other, 0), 90);
}

#[test]
fn damaged_foreign_and_misplaced_states_change_nothing() {
    let (gic, _links) = busy();
    let before = gic.save();
    for at in 0..before.len() {
        let mut bad = before.clone();
        bad[at] ^= 0x10;
        assert!(gic.restore(&bad).is_err(), "byte {at}");
        assert!(gic.restore(&before[..at]).is_err(), "{at} bytes");
    }
    let mut long = before.clone();
    long.push(0);
    assert_eq!(gic.restore(&long), Err(StateError::Corrupt));
    assert_eq!(gic.restore(b"bplist00 and more"), Err(StateError::Foreign));
    let (one, _links) = booted(1);
    assert_eq!(one.restore(&before), Err(StateError::Topology));
    gic.set_affinity(1, 5);
    assert_eq!(gic.restore(&before), Err(StateError::Topology));
    gic.set_affinity(1, 1);
    assert_eq!(gic.save(), before);
}

#[test]
fn a_vcpu_that_was_not_saved_is_reset_by_a_restore() {
    let (one, _links) = booted(1);
    let saved = one.save();
    let (two, _more) = busy();
    assert_eq!(two.restore(&saved), Ok(()));
    let fresh = two.save();
    let (other, _links) = booted(2);
    assert_eq!(other.restore(&saved), Ok(()));
    assert_eq!(other.save(), fresh);
}

#[test]
fn reset_forgets_everything_but_the_lines() {
    let (gic, _links) = busy();
    gic.reset();
    assert!(!gic.irq_line(0) && !gic.irq_line(1));
    assert_eq!(gic.distributor_read(0x104), 0);
    assert_eq!(gic.icc_read(0, IccReg::Pmr), 0);
    assert_eq!(running(&gic, 1), 0xff);
    assert_eq!(gic.distributor_read(0x208) & 1 << (90 - 64), 1 << (90 - 64));
}

#[test]
fn interrupts_from_many_threads_are_all_taken() {
    const ROUNDS: u64 = 2000;
    let (gic, links) = booted(2);
    gic.mmio_write(GICD + 0xc08, 4, 0xaaaa_aaaa, 0);
    gic.mmio_write(GICD + 0x6000 + 8 * 33, 8, 1, 0);
    let taken = std::thread::scope(|scope| {
        let vcpus = [0, 1].map(|vcpu| {
            let (gic, link) = (&gic, &links[vcpu]);
            scope.spawn(move || {
                let mut seen = [0u64; 64];
                while seen[1] < ROUNDS {
                    if link.take(attention::IRQ) == 0 && !gic.irq_line(vcpu) {
                        std::thread::yield_now();
                        continue;
                    }
                    let intid = iar(gic, vcpu);
                    if intid != 1023 {
                        seen[intid as usize] += 1;
                        eoi(gic, vcpu, intid);
                    }
                }
                seen
            })
        });
        for _ in 0..ROUNDS {
            for (spi, target) in [(32, 0), (33, 1)] {
                gic.set_spi(spi, true).unwrap();
                gic.icc_write(5, IccReg::Sgi1r, 1 << 24 | 1 << target);
                let frame = gic.redistributor_base(target) + 0x1_0200;
                // Each SGI is taken before the next, so that none merge.
                while gic.mmio_read(frame, 4, 5) != 0 {
                    std::thread::yield_now();
                }
            }
        }
        vcpus.map(|vcpu| vcpu.join().unwrap())
    });
    for (vcpu, spi) in [(0, 32), (1, 33)] {
        assert_eq!(taken[vcpu][1], ROUNDS);
        assert!(taken[vcpu][spi] > 0);
    }
}

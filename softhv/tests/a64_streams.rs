//! Differential test of the whole CPU: random instruction streams of every
//! group against `qemu-aarch64`.

mod a64;

use std::collections::HashSet;

use a64::campaign::{Plan, batch, run};
use a64::report::disassemble;
use supermachine_softhv::Tier;

/// Instructions compared by the test; longer runs: the example `a64-soak`.
const INSTRUCTIONS: u64 = 10_000_000;

fn run_streams(tier: Tier, first: u64) {
    let plan = Plan {
        seed: 1,
        first,
        instructions: INSTRUCTIONS,
        batches: u64::MAX,
        tier,
    };
    let tally = run(plan, |_| ());
    println!("{tally:?}");
    assert!(tally.instructions >= INSTRUCTIONS);
    assert!(tally.faults > tally.runs / 50, "faults are part of it");
}

#[test]
fn random_streams_leave_the_state_that_qemu_leaves() {
    run_streams(Tier::Interpret, 0);
}

#[test]
fn compiled_streams_leave_the_state_that_qemu_leaves() {
    run_streams(Tier::Compile, 0);
}

/// Mnemonics of every encoding group, as the GNU disassembler prefers them.
const MNEMONICS: &str = "
    adr adrp add adds sub subs and ands orr eor movn mov movk movi bfi bfxil sbfx ubfx extr ror
    lsl lsr asr bic bics eon orn tst cmn neg negs ngc adc adcs sbc sbcs ccmn ccmp csel csinc
    csinv csneg udiv sdiv rbit rev rev16 rev32 clz cls madd msub smaddl umsubl smulh umulh
    crc32b crc32h crc32w crc32x crc32cb crc32ch crc32cw crc32cx
    b bl br blr ret cbz cbnz tbz tbnz b.eq b.hi b.lt b.al
    ldr ldrb ldrh ldrsb ldrsh ldrsw str strb strh ldur ldurb ldursw stur sturb ldtr ldtrsh sttr
    ldp ldpsw stp ldnp stnp prfm prfum
    ldxr ldxrb ldaxr ldaxrh ldxp ldaxp stxr stlxr stlxrb stxp stlxp ldar stlr stlrb
    cas casal casab casp caspal ldadd ldaddalb ldclr ldeor ldset ldsmax ldsmin ldumax ldumin
    swp swpalh stadd
    mrs msr nop yield wfe sev sevl dsb dmb isb clrex dc ic
    fmov fadd fsub fmul fdiv fnmul fmadd fmsub fnmadd fnmsub fmax fmin fmaxnm fminnm fneg fabs
    fsqrt fcmp fcmpe fccmp fcsel fcvt fcvtas fcvtmu fcvtns fcvtpu fcvtzs fcvtzu scvtf ucvtf
    frinta frinti frintm frintn frintp frintx frintz
    faddp fabd facge facgt fcmeq fcmge fcmgt fcmle fcmlt fmla fmls fmulx fmaxnmp fmaxv fminnmv
    frecpe frecps frecpx frsqrte frsqrts fcvtl fcvtn fcvtxn urecpe ursqrte
    abs addhn addp addv bif bit bsl cmeq cmge cmgt cmhi cmhs cmle cmlt cmtst cnt dup ext ins
    mla mls mul mvni not pmul pmull raddhn rshrn saba sabal sabd sabdl sadalp saddl saddlp
    saddlv saddw shadd shl shll shrn shsub sli smax smaxp smaxv smlal smlsl smov smull sqabs
    sqadd sqdmlal sqdmlsl sqdmulh sqdmull sqneg sqrdmlah sqrdmlsh sqrdmulh sqrshl sqrshrn
    sqrshrun sqshl sqshlu sqshrn sqshrun sqsub sqxtn sqxtun srhadd sri srshl srshr srsra sshl
    sshll sshr ssra ssubl ssubw suqadd tbl tbx trn1 uaba uabal uadalp uaddlv umaxp umov uqadd
    uqrshl uqrshrn uqshl uqshrn uqsub uqxtn urhadd urshl urshr ursra ushl ushll ushr usqadd
    usra usubl uzp1 xtn zip1 zip2 sdot udot
    aesd aese aesimc aesmc sha1c sha1h sha1m sha1p sha1su0 sha1su1 sha256h sha256h2 sha256su0
    sha256su1
    ld1 ld1r ld2 ld2r ld3 ld3r ld4 ld4r st1 st2 st3 st4
";

#[test]
fn streams_have_every_kind_of_instruction() {
    let mut seen = HashSet::new();
    for number in 0..4 {
        let streams = batch(1, number).streams;
        let words: Vec<u32> = streams.into_iter().flat_map(|s| s.words).collect();
        let text = disassemble(&words, &["-M", "no-aliases"]);
        let names = text.iter().filter_map(|line| line.split('\t').nth(2));
        let aliased = disassemble(&words, &[]);
        let short = aliased.iter().filter_map(|line| line.split('\t').nth(2));
        seen.extend(names.chain(short).map(|name| name.trim().to_owned()));
    }
    let wanted = MNEMONICS.split_whitespace();
    let missing: Vec<_> = wanted.filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

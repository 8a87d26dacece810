// Takes exceptions of every kind, from EL1 and EL0, and prints what the
// exception registers said. Runs on the engine and on QEMU's virt machine.
//
// Each event is five 64-bit words: case << 8 | vector, ESR, ELR, FAR, SPSR; or
// case << 8 | 0xff and a value. The tables and addresses come from the host
// side as symbols: see `layout.rs`.

        .macro  address reg, value
        movz    \reg, #((\value) & 0xffff)
        movk    \reg, #((\value) >> 16 & 0xffff), lsl #16
        movk    \reg, #((\value) >> 32 & 0xffff), lsl #32
        movk    \reg, #((\value) >> 48 & 0xffff), lsl #48
        .endm

        // Starts case \n: the exception it takes continues at its end.
        .macro  begin n
        mov     x27, #\n
        adr     x28, 9f
        .endm

        // Ends a case.
        .macro  finish
9:
        .endm

        // Runs the code at user label \at at EL0.
        .macro  user n, at
        begin   \n
        address x8, USER_CODE
        adr     x9, user_code
        adr     x10, \at
        sub     x10, x10, x9
        add     x8, x8, x10
        msr     elr_el1, x8
        msr     spsr_el1, x26
        eret
        finish
        .endm

        // One load from, or store to, \at.
        .macro  load n, at
        begin   \n
        address x0, \at
        ldr     x1, [x0]
        finish
        .endm
        .macro  store n, at
        begin   \n
        address x0, \at
        str     x1, [x0]
        finish
        .endm
        .macro  jump n, at
        begin   \n
        address x0, \at
        br      x0
        finish
        .endm

        // Prints \reg as the value of case \n.
        .macro  value n, reg
        mov     x27, #\n
        mov     x0, \reg
        bl      print
        .endm

        .text
        .global _start
_start:
        adr     x0, vectors
        msr     vbar_el1, x0
        mov     x0, #3 << 20
        msr     cpacr_el1, x0
        address x0, LOG
        msr     tpidr_el1, x0
        address x0, STACK
        mov     sp, x0
        // normal memory, device memory
        mov     x0, #0xff
        msr     mair_el1, x0
        address x0, TCR
        msr     tcr_el1, x0
        address x0, TABLES
        msr     ttbr0_el1, x0
        address x0, TABLES + 0x1000
        msr     ttbr1_el1, x0
        isb
        tlbi    vmalle1
        dsb     sy
        address x0, SCTLR
        msr     sctlr_el1, x0
        isb
        mov     x26, #0                 // SPSR for EL0
        mov     x25, #0x3c5             // SPSR for EL1

        msr     nzcv, xzr
        // Translation, access flag, permission and address size faults by
        // level.
        load    1, LEVEL0
        load    2, LEVEL1
        load    3, LEVEL2
        load    4, LEVEL3
        store   5, LEVEL0
        store   6, LEVEL3
        load    7, FLAG1
        load    8, FLAG2
        load    9, FLAG3
        store   10, FLAG3
        store   11, READ1
        store   12, READ2
        store   13, READ3
        load    14, SIZE1
        load    15, SIZE2
        load    16, SIZE3
        load    17, TABLE0
        load    18, TABLE1
        load    19, TABLE2
        store   20, APTABLE
        jump    21, LEVEL3
        jump    22, LEVEL2
        jump    23, FLAG3
        jump    24, USER_CODE
        jump    25, USER_DATA
        jump    26, NO_EXEC
        jump    27, PXNTABLE
        load    28, 0x0001000000000000
        load    29, 0xfffe000000000000
        load    30, 0xffff000000000000
        load    31, HIGH
        // The tag of a data address stays in FAR.
        load    32, 0xab00000000000000 + LEVEL3
        load    33, 0xab00000000000000 + USER_DATA
        jump    34, 0xab00000000000000 + LEVEL3
        jump    35, USER_CODE + 2
        jump    36, USER_CODE + 1

        // PAN.
        msr     pan, #1
        mov     x25, #0x3c5
        orr     x25, x25, #1 << 22
        load    40, USER_DATA
        store   41, USER_DATA
        begin   42
        address x0, USER_DATA
        ldtr    x1, [x0]
        sttr    x1, [x0]
        finish
        begin   43
        address x0, USER_READ
        sttr    x1, [x0]
        finish
        begin   44
        address x0, READ3
        ldtr    x1, [x0]
        finish
        begin   45
        address x0, LEVEL3
        sttr    x1, [x0]
        finish
        msr     pan, #0
        mov     x25, #0x3c5
        load    46, USER_DATA
        store   47, USER_READ

        // Exceptions on purpose, from EL1h and EL1t.
        begin   50
        svc     #0x1234
        finish
        begin   51
        brk     #0xfff1
        finish
        begin   52
        .inst   0                       // udf #0
        finish
        begin   53
        msr     spsel, #0
        svc     #7
        finish
        begin   54
        msr     spsel, #0
        .inst   0x00000001
        finish
        msr     spsel, #1
        begin   55
        cmn     xzr, xzr                // Z set
        msr     pan, #1
        svc     #1
        finish
        msr     pan, #0

        // Returns to states that are not there.
        begin   60
        adr     x0, 1f
        msr     elr_el1, x0
        mov     x0, #0x3c9              // EL2h
        msr     spsr_el1, x0
        eret
1:      nop
        finish
        begin   61
        adr     x0, 1f
        msr     elr_el1, x0
        mov     x0, #0x1d0              // AArch32
        msr     spsr_el1, x0
        eret
1:      nop
        finish
        begin   62
        adr     x0, 1f
        msr     elr_el1, x0
        mov     x0, #0x3c1              // reserved
        msr     spsr_el1, x0
        eret
1:      nop
        finish
        begin   63
        adr     x0, 1f
        msr     elr_el1, x0
        mov     x0, #0x3c5
        orr     x0, x0, #1 << 20        // IL in the saved state
        msr     spsr_el1, x0
        eret
1:      nop
        finish

        // Alignment.
        address x20, DATA + 1
        begin   70
        ldxr    w1, [x20]
        finish
        begin   71
        ldar    x1, [x20]
        finish
        begin   72
        stlr    x1, [x20]
        finish
        begin   73
        ldadd   x1, x2, [x20]
        finish
        begin   74
        cas     w1, w2, [x20]
        finish
        begin   75
        address x0, DATA + 8
        casp    x2, x3, x4, x5, [x0]
        finish
        begin   76
        mov     w1, #0
        ldxr    w2, [x20]
        finish

        // Atomic operations on read-only memory count as writes.
        address x20, READ3
        begin   80
        ldadd   x1, x2, [x20]
        finish
        begin   81
        mov     x1, #-1
        cas     x1, x2, [x20]
        finish
        begin   82
        swp     x1, x2, [x20]
        finish
        begin   83
        ldxr    x1, [x20]
        stxr    w2, x1, [x20]
        finish
        // The second page of an access.
        begin   84
        address x0, LAST - 4
        ldr     x1, [x0]
        finish
        begin   85
        address x0, LAST - 4
        str     x1, [x0]
        finish
        begin   86
        address x0, LAST - 12
        ldp     x1, x2, [x0]
        finish
        begin   87
        address x0, LAST - 8
        stp     q1, q2, [x0, #-16]!
        finish

        // Cache maintenance.
        begin   90
        address x0, LEVEL3 + 0x24
        dc      civac, x0
        finish
        begin   91
        address x0, LEVEL3 + 0x24
        dc      zva, x0
        finish
        begin   92
        address x0, READ3 + 0x24
        dc      zva, x0
        finish
        begin   93
        address x0, LEVEL2
        dc      ivac, x0
        finish
        // Address translation.
        .macro  at_case n, op, at
        begin   \n
        address x0, \at
        at      \op, x0
        isb
        mrs     x0, par_el1
        bl      print
        finish
        .endm
        at_case 100, s1e1r, LEVEL0
        at_case 101, s1e1r, LEVEL1
        at_case 102, s1e1r, LEVEL2
        at_case 103, s1e1r, LEVEL3
        at_case 104, s1e1w, READ3
        at_case 105, s1e1r, FLAG2
        at_case 106, s1e0r, USER_DATA
        at_case 107, s1e0w, USER_READ
        at_case 108, s1e0r, READ3
        at_case 109, s1e1r, SIZE3
        msr     pan, #1
        at_case 110, s1e1r, USER_DATA
        msr     pan, #0

        // FP and vectors trapped.
        msr     cpacr_el1, xzr
        isb
        begin   120
        fmov    d0, #1.0
        finish
        begin   121
        address x0, LEVEL3
        ldr     q0, [x0]
        finish
        begin   122
        mrs     x0, fpcr
        finish
        user    123, user_fp
        mov     x0, #1 << 20
        msr     cpacr_el1, x0
        isb
        begin   124
        fmov    d0, #1.0
        finish
        user    125, user_fp
        mov     x0, #3 << 20
        msr     cpacr_el1, x0
        isb

        // From EL0.
        user    130, user_svc
        user    131, user_brk
        user    132, user_undefined
        user    133, user_hvc
        user    134, user_smc
        user    135, user_load_kernel
        user    136, user_store_read_only
        user    137, user_load_unmapped
        user    138, user_jump_kernel
        user    139, user_jump_unmapped
        user    140, user_jump_odd
        user    141, user_exclusive
        user    142, user_tagged
        user    143, user_eret
        user    144, user_msr_vbar
        user    145, user_mrs_esr
        // NZCV and DAIF in SPSR.
        mov     x26, #0xa0000000
        user    146, user_svc
        mov     x26, #0
        // What SCTLR_EL1 and CNTKCTL_EL1 trap.
        user    150, user_mrs_ctr
        user    151, user_daif
        user    152, user_zva
        user    153, user_ivau
        user    154, user_wfi
        user    155, user_wfe
        user    156, user_cntvct
        user    157, user_cvac
        user    158, user_daifset
        user    159, user_dczid
        user    160, user_cntfrq
        user    161, user_tlbi
        // and what they do not.
        mrs     x0, sctlr_el1
        address x1, OPEN
        orr     x0, x0, x1
        msr     sctlr_el1, x0
        mov     x0, #3
        msr     cntkctl_el1, x0
        isb
        user    170, user_mrs_ctr
        user    171, user_daif
        user    172, user_zva
        user    173, user_ivau
        user    174, user_wfe
        user    175, user_cntvct
        user    176, user_cvac
        user    177, user_zva_kernel
        user    178, user_cvac_unmapped
        user    179, user_ivau_unmapped

        // An exception, even to the same level, clears the monitor.
        begin   190
        address x20, DATA
        mov     w22, #7
        ldxr    w21, [x20]
        svc     #0
        finish
        stxr    w22, w21, [x20]
        value   191, x22
        ldxr    w21, [x20]
        stxr    w22, w21, [x20]
        value   192, x22
        stxr    w22, w21, [x20]
        value   193, x22
        ldxr    w21, [x20]
        clrex
        stxr    w22, w21, [x20]
        value   194, x22

        // A translation changes when TLBI says so.
        address x20, MOVING
        ldr     x21, [x20]
        value   200, x21
        address x1, MOVING_ENTRY
        ldr     x0, [x1]
        eor     x0, x0, #0x1000
        str     xzr, [x1]
        dsb     ish
        lsr     x2, x20, #12
        tlbi    vae1is, x2
        dsb     ish
        str     x0, [x1]
        dsb     ish
        isb
        ldr     x21, [x20]
        value   201, x21
        str     xzr, [x1]
        dsb     ish
        tlbi    vaae1, x2
        dsb     nsh
        isb
        begin   202
        ldr     x21, [x20]
        finish
        // Non-global entries go with their ASID, others do not.
        mrs     x0, spsr_el1
        msr     nzcv, xzr
        mrs     x0, nzcv
        value   203, x0
        mrs     x0, currentel
        value   204, x0
        mrs     x0, spsel
        value   205, x0
        mrs     x0, daif
        value   206, x0
        mrs     x0, pan
        value   207, x0
        msr     daifclr, #15
        mrs     x0, daif
        value   208, x0
        msr     daifset, #5
        mrs     x0, daif
        value   209, x0
        msr     daifset, #15

        // Print everything, then PSCI SYSTEM_OFF.
        mrs     x1, tpidr_el1
        address x0, LOG
        address x2, UART
1:      cmp     x0, x1
        b.hs    2f
        ldrb    w3, [x0], #1
        strb    w3, [x2]
        b       1b
2:      mov     w0, #8
        movk    w0, #0x8400, lsl #16
        hvc     #0
        b       2b

print:  mrs     x11, tpidr_el1
        lsl     x12, x27, #8
        orr     x12, x12, #0xff
        stp     x12, x0, [x11], #16
        stp     xzr, xzr, [x11], #16
        str     xzr, [x11], #8
        msr     tpidr_el1, x11
        ret

handler:
        mrs     x11, tpidr_el1
        orr     x12, x10, x27, lsl #8
        mrs     x13, esr_el1
        stp     x12, x13, [x11], #16
        mrs     x12, elr_el1
        mrs     x13, far_el1
        stp     x12, x13, [x11], #16
        mrs     x12, spsr_el1
        str     x12, [x11], #8
        msr     tpidr_el1, x11
        msr     elr_el1, x28
        msr     spsr_el1, x25
        eret

        .macro  vector n
        .balign 128
        mov     x10, #\n
        b       handler
        .endm

        .balign 2048
vectors:
        vector  0
        vector  1
        vector  2
        vector  3
        vector  4
        vector  5
        vector  6
        vector  7
        vector  8
        vector  9
        vector  10
        vector  11
        vector  12
        vector  13
        vector  14
        vector  15

        // This page is also mapped at USER_CODE.
        .org    USER_OFFSET
user_code:
user_svc:
        svc     #0xffff
user_brk:
        brk     #1
user_undefined:
        .inst   0x00000002
user_hvc:
        hvc     #0
user_smc:
        smc     #0
user_load_kernel:
        address x0, DATA
        ldr     x1, [x0]
user_store_read_only:
        address x0, USER_READ
        str     x1, [x0, #8]
user_load_unmapped:
        address x0, LEVEL3
        ldrb    w1, [x0, #3]
user_jump_kernel:
        address x0, DATA
        br      x0
user_jump_unmapped:
        address x0, LEVEL3
        blr     x0
user_jump_odd:
        address x0, LEVEL3 + 6
        ret     x0
user_exclusive:
        address x0, USER_DATA + 2
        ldaxr   w0, [x0]
user_tagged:
        address x0, 0xcd00000000000000 + LEVEL3
        strh    w1, [x0, #2]
user_eret:
        eret
user_msr_vbar:
        msr     vbar_el1, x0
user_mrs_esr:
        mrs     x3, esr_el1
user_fp:
        fmov    d0, #1.0
        svc     #2
user_mrs_ctr:
        mrs     x5, ctr_el0
        svc     #3
user_daif:
        mrs     x6, daif
        svc     #4
user_zva:
        address x0, USER_DATA + 0x100
        dc      zva, x0
        svc     #5
user_ivau:
        address x7, USER_DATA
        ic      ivau, x7
        svc     #6
user_wfi:
        wfi
        svc     #7
user_wfe:
        wfe
        svc     #8
user_cntvct:
        mrs     x9, cntvct_el0
        svc     #9
user_cvac:
        address x7, USER_DATA
        dc      cvac, x7
        svc     #10
user_daifset:
        msr     daifset, #2
        svc     #11
user_dczid:
        mrs     x9, dczid_el0
        svc     #12
user_cntfrq:
        mrs     x9, cntfrq_el0
        svc     #13
user_tlbi:
        tlbi    vmalle1
user_zva_kernel:
        address x0, DATA + 0x100
        dc      zva, x0
        svc     #14
user_cvac_unmapped:
        address x0, LEVEL3 + 0x10
        dc      cvac, x0
        svc     #15
user_ivau_unmapped:
        address x0, LEVEL3 + 0x10
        ic      ivau, x0
        svc     #16
        .balign 4096

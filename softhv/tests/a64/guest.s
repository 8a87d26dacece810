// The program that qemu-aarch64 runs: executes streams of instructions, each
// from its own initial state, and writes out what they left behind.
//
// Every stream ends in an exception (its last word is a BRK), which arrives
// here as a signal. The handler stores the record of the stream that ended,
// loads the state of the next one into the signal frame and returns to it.
//
// Addresses come from the host side as symbols: RUNS, IMAGE, WINDOW, OUT,
// STACK (top). Linux signal frame: registers at 184, FP context at 464.

        .equ    RECORD, 944
        .equ    FRAME_REGS, 184
        .equ    FRAME_PC, 184 + 32 * 8
        .equ    FRAME_FPSR, 472
        .equ    FRAME_V, 480

        .macro  address reg, value
        movz    \reg, #((\value) & 0xffff)
        movk    \reg, #((\value) >> 16 & 0xffff), lsl #16
        movk    \reg, #((\value) >> 32 & 0xffff), lsl #32
        .endm

        .text
        .global _start
_start:
        // Unmap what the loader reserved around and between the pages.
        address x0, WINDOW - 0x100000
        mov     x1, #0x100000
        bl      unmap
        address x0, WINDOW + 0x4000
        mov     x1, #0x1000
        bl      unmap
        address x0, WINDOW + 0x6000
        mov     x1, #0x100000
        bl      unmap
        // Move what is not the streams' out of their reach.
        address x0, RUNS
        ldr     x19, [x0, #8]           // bytes of output
        ldr     x1, [x0]
        lsl     x1, x1, #4
        add     x1, x1, #0x200000       // the states are fewer bytes than this
        bl      move
        address x0, IMAGE
        mov     x1, #0x4000
        bl      move
        address x0, GLOBALS
        mov     x1, #0x1000
        bl      move
        address x0, STACK - 0x10000
        mov     x1, #0x10000
        bl      move
        address x0, OUT
        mov     x1, x19
        bl      move
        // sigaltstack
        adr     x0, stack
        mov     x1, #0
        mov     x8, #132
        svc     #0
        mov     x19, #4                 // SIGILL
        bl      catch
        mov     x19, #5                 // SIGTRAP
        bl      catch
        mov     x19, #7                 // SIGBUS
        bl      catch
        mov     x19, #11                // SIGSEGV
        bl      catch
        address x0, AWAY + RUNS
        ldr     x1, [x0]                // runs left
        address x2, AWAY + OUT
        address x3, AWAY + RUNS + 16           // next run
        address x4, AWAY + GLOBALS
        stp     x1, x2, [x4]
        str     x3, [x4, #16]
        // The first exception starts the first run; it leaves no record.
        brk     #0

unmap:
        mov     x8, #215
        svc     #0
        ret

        // mremap, may move, fixed
move:   address x4, AWAY
        add     x4, x4, x0
        mov     x2, x1
        mov     x3, #3
        mov     x8, #216
        svc     #0
        ret

catch:
        mov     x0, x19
        adr     x1, action
        mov     x2, #0
        mov     x3, #8
        mov     x8, #134
        svc     #0
        ret

handler:
        address x3, AWAY + GLOBALS
        ldp     x5, x4, [x3]            // runs left, record
        ldr     x6, [x3, #16]
        ldr     x7, [x3, #24]
        cbz     x7, next                // nothing ran yet
        ldrsw   x9, [x1, #8]
        stp     x0, x9, [x4]
        ldr     x9, [x1, #16]
        str     x9, [x4, #16]
        add     x10, x2, #FRAME_REGS
        add     x11, x4, #24
        mov     x12, #17
1:      ldp     x13, x14, [x10], #16
        stp     x13, x14, [x11], #16
        subs    x12, x12, #1
        b.ne    1b
        ldr     x13, [x2, #FRAME_FPSR]
        str     x13, [x11], #8
        add     x10, x2, #FRAME_V
        mov     x12, #16
2:      ldp     q0, q1, [x10], #32
        stp     q0, q1, [x11], #32
        subs    x12, x12, #1
        b.ne    2b
        // Sums and sums of sums over the writable pages.
        movi    v16.2d, #0
        movi    v17.2d, #0
        movi    v18.2d, #0
        movi    v19.2d, #0
        movi    v20.2d, #0
        movi    v21.2d, #0
        movi    v22.2d, #0
        movi    v23.2d, #0
        address x10, WINDOW
        mov     x12, #0x2000
        bl      sum
        address x10, WINDOW + 0x3000
        mov     x12, #0x1000
        bl      sum
        address x10, WINDOW + 0x5000
        mov     x12, #0x1000
        bl      sum
        st1     {v16.2d-v19.2d}, [x11], #64
        st1     {v20.2d-v23.2d}, [x11], #64
        add     x4, x4, #RECORD
        sub     x5, x5, #1
        cbz     x5, finish
next:
        mov     x7, #1
        str     x7, [x3, #24]
        ldp     x13, x14, [x6], #16     // program counter, state
        stp     x5, x4, [x3]
        str     x6, [x3, #16]
        add     x10, x2, #FRAME_REGS
        mov     x12, #17
3:      ldp     x15, x16, [x14], #16
        stp     x15, x16, [x10], #16
        subs    x12, x12, #1
        b.ne    3b
        str     x13, [x2, #FRAME_PC]
        ldr     x15, [x14], #8
        str     x15, [x2, #FRAME_FPSR]
        add     x10, x2, #FRAME_V
        mov     x12, #16
4:      ldp     q0, q1, [x14], #32
        stp     q0, q1, [x10], #32
        subs    x12, x12, #1
        b.ne    4b
        ldr     x15, [x14]
        msr     tpidr_el0, x15
        address x9, AWAY + IMAGE
        address x10, WINDOW
        mov     x12, #0x2000
        bl      copy
        address x10, WINDOW + 0x3000
        mov     x12, #0x1000
        bl      copy
        address x10, WINDOW + 0x5000
        mov     x12, #0x1000
        bl      copy
        mov     x8, #139                // rt_sigreturn
        svc     #0

sum:
        ld1     {v0.2d-v3.2d}, [x10], #64
        add     v16.2d, v16.2d, v0.2d
        add     v17.2d, v17.2d, v1.2d
        add     v18.2d, v18.2d, v2.2d
        add     v19.2d, v19.2d, v3.2d
        add     v20.2d, v20.2d, v16.2d
        add     v21.2d, v21.2d, v17.2d
        add     v22.2d, v22.2d, v18.2d
        add     v23.2d, v23.2d, v19.2d
        subs    x12, x12, #64
        b.ne    sum
        ret

copy:
        ldp     q0, q1, [x9], #32
        ldp     q2, q3, [x9], #32
        stp     q0, q1, [x10], #32
        stp     q2, q3, [x10], #32
        subs    x12, x12, #64
        b.ne    copy
        ret

finish:
        address x1, AWAY + OUT
        sub     x2, x4, x1
5:      mov     x0, #1
        mov     x8, #64
        svc     #0
        cmp     x0, #0
        b.le    6f
        add     x1, x1, x0
        subs    x2, x2, x0
        b.ne    5b
6:      mov     x0, x2
        mov     x8, #94
        svc     #0

        .balign 8
action: .quad   handler
        .quad   0x0c000004              // ONSTACK, RESTORER, SIGINFO
        .quad   handler
        .quad   0
stack:    .quad   AWAY + STACK - 0x10000
        .quad   0
        .quad   0x10000

/* Start a program without a C library under Linux, or QEMU in its place: read, write and exit of a microcontroller's
   core. The numbers of these calls are those of Linux. */
    .text
    .global _start, read, write

#if defined(__arm__)
    .syntax unified
    .thumb
    .thumb_func
_start:
    bl main
    movs r7, #1
    svc #0
    .thumb_func
read:
    push {r7, lr}
    movs r7, #3
    svc #0
    pop {r7, pc}
    .thumb_func
write:
    push {r7, lr}
    movs r7, #4
    svc #0
    pop {r7, pc}

#elif defined(__riscv)
#ifdef __riscv_32e /* which has no a7 */
#define NUMBER t0
#else
#define NUMBER a7
#endif
_start:
    .option push
    .option norelax
    la gp, __global_pointer$
    .option pop
    call main
    li NUMBER, 93
    ecall
read:
    li NUMBER, 63
    ecall
    ret
write:
    li NUMBER, 64
    ecall
    ret
#endif

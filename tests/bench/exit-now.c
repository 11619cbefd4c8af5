/* SPDX-License-Identifier: Apache-2.0 */
/* The smallest static program: it exits. No C library, whose start-up would be most of the fork-exec row. */
void _start(void);
void _start(void) {
  __asm__ volatile("syscall" : : "a"(60), "D"(0) : "rcx", "r11", "memory");
  __builtin_unreachable();
}

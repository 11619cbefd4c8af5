/* SPDX-License-Identifier: Apache-2.0 */
/* crash-writer.c - writes without end what run-crash can check after everything was killed. A static guest program.
 *
 *   crash-writer DIR
 *
 * Round i appends record i (RECORD bytes, crash.h) to DIR/first, then to DIR/second, then replaces DIR/whole by a new file
 * of i % 50 + 1 records, through a rename.
 */
#include "crash.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static void put(int fd, unsigned i) {
  unsigned char record[RECORD];
  crash_record(record, i);
  if (write(fd, record, RECORD) != RECORD)
    _exit(2);
}

int main(int argc, char **argv) {
  if (argc != 2 || chdir(argv[1]) < 0)
    return 2;
  int first = open("first", O_WRONLY | O_CREAT | O_APPEND, 0644),
      second = open("second", O_WRONLY | O_CREAT, 0644);
  if (first < 0 || second < 0)
    return 2;
  for (unsigned i = 0;; i++) {
    put(first, i);
    put(second, i);
    int whole = open("new", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (whole < 0)
      return 2;
    for (unsigned k = 0; k <= i % 50; k++)
      put(whole, i);
    fchmod(whole, 0644);
    close(whole);
    if (rename("new", "whole") < 0)
      return 2;
    if (i == 0) {
      puts("going");
      fflush(stdout);
    }
  }
}

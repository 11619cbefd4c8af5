/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces: the loopback, which every network namespace has. */
#include "sys.h"

#define LO "devices/virtual/net/lo/"
#define STAT(name_) \
  { .path = LO "statistics/" name_, .fixed = "0" }

static const SysEntry entries[] = {{.path = LO "addr_assign_type", .fixed = "0"},
                                   {.path = LO "addr_len", .fixed = "6"},
                                   {.path = LO "address", .fixed = "00:00:00:00:00:00"},
                                   {.path = LO "broadcast", .fixed = "00:00:00:00:00:00"},
                                   {.path = LO "carrier", .fixed = "1"},
                                   {.path = LO "carrier_changes", .fixed = "0"},
                                   {.path = LO "dev_id", .fixed = "0x0"},
                                   {.path = LO "dev_port", .fixed = "0"},
                                   {.path = LO "dormant", .fixed = "0"},
                                   {.path = LO "flags", .fixed = "0x9"},
                                   {.path = LO "ifalias", .fixed = ""},
                                   {.path = LO "ifindex", .fixed = "1"},
                                   {.path = LO "iflink", .fixed = "1"},
                                   {.path = LO "link_mode", .fixed = "0"},
                                   {.path = LO "mtu", .fixed = "65536"},
                                   {.path = LO "netdev_group", .fixed = "0"},
                                   {.path = LO "operstate", .fixed = "unknown"},
                                   {.path = LO "proto_down", .fixed = "0"},
                                   {.path = LO "queues/rx-0/rps_cpus", .fixed = "0"},
                                   {.path = LO "queues/tx-0/xps_cpus", .fixed = "0"},
                                   STAT("collisions"),
                                   STAT("multicast"),
                                   STAT("rx_bytes"),
                                   STAT("rx_compressed"),
                                   STAT("rx_crc_errors"),
                                   STAT("rx_dropped"),
                                   STAT("rx_errors"),
                                   STAT("rx_fifo_errors"),
                                   STAT("rx_frame_errors"),
                                   STAT("rx_length_errors"),
                                   STAT("rx_missed_errors"),
                                   STAT("rx_nohandler"),
                                   STAT("rx_over_errors"),
                                   STAT("rx_packets"),
                                   STAT("tx_aborted_errors"),
                                   STAT("tx_bytes"),
                                   STAT("tx_carrier_errors"),
                                   STAT("tx_compressed"),
                                   STAT("tx_dropped"),
                                   STAT("tx_errors"),
                                   STAT("tx_fifo_errors"),
                                   STAT("tx_heartbeat_errors"),
                                   STAT("tx_packets"),
                                   STAT("tx_window_errors"),
                                   {.path = LO "tx_queue_len", .fixed = "1000"},
                                   {.path = LO "type", .fixed = "772"},
                                   {.path = LO "uevent", .fixed = "INTERFACE=lo\nIFINDEX=1"},
                                   {.path = NULL}};

void sys_add_net(SysFs *fs) {
  sys_add_table(fs, entries);
  sys_add_link(fs, "class/net/lo", "devices/virtual/net/lo");
  sys_add_link(fs, LO "subsystem", "class/net");
}

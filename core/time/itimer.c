/* SPDX-License-Identifier: Apache-2.0 */
/* A thread group's interval timers and its CPU limit: setitimer(2), alarm(2), setrlimit(2) RLIMIT_CPU (C7).
 *
 * ITIMER_REAL is a timer of the service. ITIMER_VIRTUAL and ITIMER_PROF count down by ticks as the CPU clock charges the group;
 * their signal goes to the task that was charged, so that every busy thread gets its share. */
#include <core/time/cpuclock.h>
#include <core/time/itimer.h>

static const TesLockClass tg_timer_class = {"thread group timers", TES_RANK_TG_TIMER, FALSE,
                                            "interval and POSIX timers of a group"};

static void fire_real(TesTimer *t, guint64 missed, gpointer tg) {
  (void)t, (void)missed;
  tes_signal_group(tg, SIGALRM, NULL);
}

void tes_itimers_init(TesThreadGroup *tg) {
  tes_mutex_init(&tg->timer_lock, &tg_timer_class);
  tes_timer_init(&tg->itimer_real, tg->kernel, FALSE, fire_real, tg);
  tg->itimer_virt_left = tg->itimer_virt_period = tg->itimer_prof_left = tg->itimer_prof_period = 0;
  tg->posix_timers = NULL;
  tg->next_timer_id = tg->n_cpu_timers = 0;
}

void tes_itimers_exit(TesThreadGroup *tg) {
  tes_timer_cancel(&tg->itimer_real, TRUE);
  tes_mutex_lock(&tg->timer_lock);
  tg->itimer_virt_left = tg->itimer_prof_left = 0;
  tes_mutex_unlock(&tg->timer_lock);
  tes_posix_timers_clear(tg);
}

void tes_itimers_exec(TesThreadGroup *tg) { tes_posix_timers_clear(tg); }

static void get_locked(TesThreadGroup *tg, int which, TesTime *left, TesTime *period) {
  switch (which) {
  case ITIMER_REAL:
    tes_timer_get(&tg->itimer_real, left, period);
    break;
  case ITIMER_VIRTUAL:
    *left = tg->itimer_virt_left;
    *period = tg->itimer_virt_period;
    break;
  default:
    *left = tg->itimer_prof_left;
    *period = tg->itimer_prof_period;
  }
}

void tes_itimer_get(TesThreadGroup *tg, int which, TesTime *left, TesTime *period) {
  TES_LOCKED(&tg->timer_lock);
  get_locked(tg, which, left, period);
}

void tes_itimer_set(TesThreadGroup *tg, int which, TesTime value, TesTime period, TesTime *old_left,
                    TesTime *old_period) {
  TES_LOCKED(&tg->timer_lock);
  get_locked(tg, which, old_left, old_period);
  if (value == 0)
    period = 0; /* a disarmed timer has no period */
  switch (which) {
  case ITIMER_REAL:
    if (value > 0)
      tes_timer_arm(&tg->itimer_real, tes_time_add(tes_time_monotonic(tg->kernel), value), period);
    else
      tes_timer_cancel(&tg->itimer_real, FALSE);
    break;
  case ITIMER_VIRTUAL:
    tg->itimer_virt_left = value;
    tg->itimer_virt_period = period;
    break;
  default:
    tg->itimer_prof_left = value;
    tg->itimer_prof_period = period;
  }
}

/* ---- Driven by the CPU clock ---- */

/* To the charged task if it can take it, else to any of the group. */
static void signal_sampled(TesTask *t, int sig) {
  tes_mutex_lock(&t->tg->sighand->lock);
  gboolean blocked = (t->blocked & TES_SIGMASK(sig)) != 0;
  tes_mutex_unlock(&t->tg->sighand->lock);
  if (blocked)
    tes_signal_group(t->tg, sig, NULL);
  else
    tes_signal_task(t, sig, NULL);
}

/* TRUE if it expired. */
static gboolean count_down(TesTime *left, TesTime period) {
  if (*left == 0 || (*left -= TES_CLOCK_TICK) > 0)
    return FALSE;
  *left = period == 0 ? 0 : MAX(*left + period, 1);
  return TRUE;
}

/* Soft limit: SIGXCPU at every whole second from then on; hard limit: SIGKILL. */
static void check_limit(TesTask *t) {
  TesTime used = tes_cpu_time_group(t->tg);
  if (used % TES_NSEC != 0)
    return;
  tes_mutex_lock(&t->tg->limits->lock);
  struct rlimit l = t->tg->limits->v[RLIMIT_CPU];
  tes_mutex_unlock(&t->tg->limits->lock);
  rlim_t seconds = used / TES_NSEC;
  if (l.rlim_max != RLIM_INFINITY && seconds >= l.rlim_max)
    tes_signal_group(t->tg, SIGKILL, NULL);
  else if (l.rlim_cur != RLIM_INFINITY && seconds >= l.rlim_cur)
    signal_sampled(t, SIGXCPU);
}

void tes_itimers_charge(TesTask *t, gboolean in_guest) {
  TesThreadGroup *tg = t->tg;
  tes_mutex_lock(&tg->timer_lock);
  gboolean virt = in_guest && count_down(&tg->itimer_virt_left, tg->itimer_virt_period);
  gboolean prof = count_down(&tg->itimer_prof_left, tg->itimer_prof_period);
  gboolean posix = tg->n_cpu_timers > 0;
  tes_mutex_unlock(&tg->timer_lock);
  if (virt)
    signal_sampled(t, SIGVTALRM);
  if (prof)
    signal_sampled(t, SIGPROF);
  if (posix)
    tes_posix_timers_charge(t);
  check_limit(t);
}

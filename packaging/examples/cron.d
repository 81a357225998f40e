# For machines without systemd: copy this to /etc/cron.d/nfs-hostchange and set
# SWEEP_AGE and SWEEP_ROOT in @defaults@/nfs-hostchange.
SHELL=/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
17 3 * * *  root  . @defaults@/nfs-hostchange && nfs-hostchange usercache sweep "$SWEEP_AGE" "$SWEEP_ROOT"

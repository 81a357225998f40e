# For machines without systemd: copy this to /etc/cron.d/nfs-hostchange.
SHELL=/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
17 3 * * * root nfs-hostchange usercache sweep '14 days' /dev/shm/dovecot-listindex

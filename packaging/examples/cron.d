# For machines without systemd: copy this to /etc/cron.d/nfs-hostchange.
SHELL=/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
17 3 * * * root nfs-hostchange usercache sweep '14 days' /dev/shm/dovecot-listindex

# With Prometheus, this line instead: it also leaves the time of the last sweep for the textfile
# collector of node_exporter (examples/prometheus-alerts.yml).
#17 3 * * * root nfs-hostchange usercache sweep '14 days' /dev/shm/dovecot-listindex && date +'nfs_hostchange_sweep_timestamp_seconds \%s' >/var/lib/prometheus/node-exporter/nfs-hostchange-sweep.prom

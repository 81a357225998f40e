#!/bin/dash
exec "$@"

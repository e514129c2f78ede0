#!/bin/sh
# demo.mirror: what comes in goes out.
exec cat

# Each target is one line; ./dev does the set-up on a bare machine.
.PHONY: setup serve test lint types sim jepsen bench fmt ci
setup: ; ./dev setup
serve: ; ./dev serve
test: ; ./dev test
lint: ; ./dev lint
types: ; ./dev types
sim: ; ./dev sim
jepsen: ; .venv/bin/python -m jepsen real kill --rounds 20 --server jetstore
bench: ; ./dev bench
fmt: ; ./dev fmt
ci: ; ./dev ci

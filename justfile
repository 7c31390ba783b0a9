# The daily commands. Each is one command that also runs without `just`.

# lists the recipes
default:
    @just --list --unsorted

# runs the tests of the library whose names contain FILTER
test FILTER='':
    cargo test --lib -- {{FILTER}}

# runs the tests from the outside whose names contain FILTER, such as e2e::examples
suite FILTER='':
    cargo test --test suite -- {{FILTER}}

# runs all histories of the engine on all cores for MINUTES, and lets them find deliberate faults
histories MINUTES='10':
    TSDP_MINUTES={{MINUTES}} cargo test --release --lib -- --ignored histories

# runs one history of the engine for SEEDS seeds from FIRST on
history NAME SEEDS='5000' FIRST='0':
    TSDP_SEEDS={{SEEDS}} TSDP_SEED={{FIRST}} cargo test --release --lib -- histories::{{NAME}}

# measures the parts of the controller whose names contain FILTER
bench FILTER='':
    cargo bench -- {{FILTER}}

# writes every generated file again: CRDs, reference, statuses, health tests, messages
generate:
    .ci/generate

# accepts the new inline snapshots (needs cargo-insta)
snapshots:
    cargo insta test --accept

# checks the format and the lints
lint:
    .ci/lint

# checks the words of code and documentation
words:
    cargo test --test suite -- words::

# builds the static binary of a release and tests it in an empty root (as root)
static:
    .ci/static

# checks licenses, sources, and duplicate crates (needs cargo-deny)
deny:
    .ci/deny

# runs everything that must pass before a change lands
ci:
    .ci/run

# lets git run the lints before each commit
hooks:
    git config core.hooksPath .githooks

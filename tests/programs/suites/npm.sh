# A project and a workspace of it whose packages npm installs from a registry in the guest.
. /suite/steps.sh
place=/share/npm
port=4873
registry="python3 /suite/npm-registry.py"
export HOME=/tmp/npm
mkdir -p $place/packages/own $HOME
cd $place
$registry $port < /dev/null > /tmp/npm/registry.log 2>&1 &
server=$!
for try in $(seq 600); do
    (exec 3<> /dev/tcp/127.0.0.1/$port) 2> /dev/null && break
    sleep 0.2
done
npm="npm --registry http://127.0.0.1:$port/ --no-audit --no-fund --no-update-notifier"

echo "{\"name\": \"project\", \"version\": \"1.0.0\", \"workspaces\": [\"packages/own\"],
    \"dependencies\": $($registry names)}" > package.json
echo '{"name": "own", "version": "1.0.0", "main": "own.js"}' > packages/own/package.json
echo 'module.exports = require("semver").valid("1.2.3")' > packages/own/own.js

install() { $npm install && $registry check $place; }
list() { $npm ls --all; }
# What is there is removed, and installed as the lock file says.
again() { $npm ci && $registry check $place > $HOME/figures; }
use() { [ "$(node -p 'require("own")')" = 1.2.3 ] && [ "$(node_modules/.bin/semver 1.2.3)" = 1.2.3 ]; }

for name in install list again use; do
    step $name $name
done
echo "# $(cat $HOME/figures)"
kill $server
cd /
step remove rm -rf $place /tmp/npm
echo end

// demo.describe_file: the parameters are in the file that ATTUNE_PARAMETER_FILE names.
'use strict';

const fs = require('node:fs');

const parameters = JSON.parse(fs.readFileSync(process.env.ATTUNE_PARAMETER_FILE, 'utf8'));
console.log(`${parameters.path} was ${parameters.change ?? 'named'}, ${parameters.size ?? 'unknown'} bytes`);

const lines = fs.readFileSync(parameters.path, 'utf8').split('\n');
if (lines.at(-1) === '') lines.pop();
console.log(JSON.stringify({ path: parameters.path, lines: lines.length, first_line: lines[0] ?? '' }));

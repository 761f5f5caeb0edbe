// pg and pgvector's package for node, as an application uses them: node_client.mjs HOST USER DATABASE SEARCH_PATH KIND.
// Prints one line of JSON; tests/test_pgvector_clients.py judges it.
import { createRequire } from 'node:module';

const require = createRequire(process.env.COPYMATCH_NODE + '/');
const pg = require('pg');
const pgvector = require('pgvector/pg');

const [host, user, database, path, kind] = process.argv.slice(2);
const client = new pg.Client({ host, user, database });
await client.connect();
await client.query(`SET search_path = ${path}`);
await pgvector.registerTypes(client);
const at = (number) => Array.from({ length: 256 }, (_, i) => (i === number ? 1 : i === number + 1 ? 0.5 : 0));
await client.query(`CREATE TABLE items (id int PRIMARY KEY, embedding ${kind}(256))`);
for (let id = 0; id < 20; id++) {
  await client.query('INSERT INTO items VALUES ($1, $2)', [id, pgvector.toSql(at(id))]);
}
const read = await client.query('SELECT embedding FROM items WHERE id = 7');
const value = read.rows[0].embedding;
const ordered = await client.query('SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 3', [pgvector.toSql(at(7))]);
const result = { read: Array.isArray(value) && JSON.stringify(value) === JSON.stringify(at(7)), nearest: ordered.rows.map((row) => row.id) };
if (process.argv[7] === 'match') {
  await client.query("SELECT copy_create_set('items', 'items', 'id', NULL, 'embedding')");
  const found = await client.query("SELECT reference FROM copy_match_descriptor($1, 'items', 1)", [pgvector.toSql(at(7))]);
  result.matched = found.rows[0].reference;
}
await client.end();
console.log(JSON.stringify(result));

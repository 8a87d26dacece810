/*
 * A float kernel in double precision: planets under gravity (divisions and
 * square roots, latency bound) and a matrix product (multiply-add, memory).
 * Prints checksums, which must not differ between machines.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BODIES 5
#define SIZE 96

struct body {
    double at[3], speed[3], mass;
};

static void step(struct body *bodies, double dt)
{
    for (int i = 0; i < BODIES; i++) {
        for (int j = i + 1; j < BODIES; j++) {
            double away[3], square = 0.01;
            for (int k = 0; k < 3; k++) {
                away[k] = bodies[i].at[k] - bodies[j].at[k];
                square += away[k] * away[k];
            }
            double pull = dt / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].speed[k] -= away[k] * bodies[j].mass * pull;
                bodies[j].speed[k] += away[k] * bodies[i].mass * pull;
            }
        }
    }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].at[k] += dt * bodies[i].speed[k];
}

static double planets(int steps)
{
    struct body bodies[BODIES];
    double energy = 0;
    for (int i = 0; i < BODIES; i++) {
        for (int k = 0; k < 3; k++) {
            bodies[i].at[k] = (i + 1) * (k + 2) % 7 - 3.0;
            bodies[i].speed[k] = ((i + 3) * (k + 1) % 5 - 2.0) / 8;
        }
        bodies[i].mass = 1.0 / (i + 1);
    }
    while (steps--)
        step(bodies, 0.001);
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            energy += bodies[i].mass * bodies[i].speed[k] * bodies[i].speed[k] / 2;
    return energy;
}

static double left[SIZE][SIZE], right[SIZE][SIZE], product[SIZE][SIZE];

static double matrices(int rounds)
{
    double trace = 0;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            left[i][j] = (i * 31 + j * 17) % 101 / 101.0;
            right[i][j] = (i * 13 + j * 29) % 103 / 103.0;
        }
    while (rounds--) {
        for (int i = 0; i < SIZE; i++)
            for (int j = 0; j < SIZE; j++) {
                double sum = 0;
                for (int k = 0; k < SIZE; k++)
                    sum += left[i][k] * right[k][j];
                product[i][j] = sum;
            }
        left[rounds % SIZE][0] = product[0][rounds % SIZE] / SIZE;
    }
    for (int i = 0; i < SIZE; i++)
        trace += product[i][i];
    return trace;
}

int main(int argc, char **argv)
{
    int scale = argc > 1 ? atoi(argv[1]) : 1;
    printf("%.17g %.17g\n", planets(scale * 10000), matrices(scale * 2));
    return 0;
}

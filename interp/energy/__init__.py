"""Models as energy landscapes: what retrieves, at what temperature, and how much fits.

- `hopfield`: modern Hopfield retrieval (one attention step), its energy, and how many patterns it mixes
- `attention`: the heads of a model measured as such retrieval, against an untrained twin
- `temperature`: a next-token distribution as a Boltzmann distribution: entropy, heat capacity, free energy
- `classical`: the Hopfield network of 1982 and its capacity near .138 n
- `capacity`: how many patterns the modern one stores: exponentially many in the dimension
- `boltzmann`: a small Boltzmann machine: exact by enumeration, sampled, and learned
"""
